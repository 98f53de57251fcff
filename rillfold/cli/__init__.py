"""The verbs. Each lives in a module of its own and is imported only when it is called."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from rillfold import __version__
from schemas.errors import RillfoldError

# verb -> "module:command", in the order in which `rillfold --help` shows them
VERBS: dict[str, str] = {
    "demo": "rillfold.cli.demo:demo",
    "up": "rillfold.cli.up:up",
    "down": "rillfold.cli.up:down",
    "doctor": "rillfold.cli.doctor:doctor",
    "worker": "rillfold.cli.worker:worker",
    "topics": "rillfold.cli.topics:topics",
    "produce": "rillfold.cli.produce:produce",
    "query": "rillfold.cli.query:query",
    "trace": "rillfold.cli.trace:trace",
    "lineage": "rillfold.cli.lineage:lineage",
    "api": "rillfold.cli.api:api",
    "dataset": "rillfold.cli.dataset:dataset",
    "train": "rillfold.cli.train:train",
    "retrain": "rillfold.cli.train:retrain",
    "serve": "rillfold.cli.serve:serve",
    "chat": "rillfold.cli.chat:chat",
    "projection": "rillfold.cli.projection:projection",
    "dlq": "rillfold.cli.dlq:dlq",
    "bench": "rillfold.cli.bench:bench",
}


class LazyGroup(click.Group):
    """Start-up pays only for the verb that was asked for."""

    def __init__(self, *args: Any, verbs: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._verbs:
            return None
        module, _, attribute = self._verbs[name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rillfold")
def rillfold() -> None:
    """Turn a company's event log into fine-tuned adapters, and serve them."""


def main() -> None:
    # What aiokafka would print on standard error comes to people as one of our own errors.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        rillfold(standalone_mode=True)
    except RillfoldError as error:
        click.echo(f"rillfold: {error}", err=True)
        sys.exit(1)
