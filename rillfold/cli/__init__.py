"""The verbs. Each lives in a module of its own and is imported only when it is called."""

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from rillfold import __version__
from rillfold.cli.terminal.given import ClosedInput, check_text, why
from rillfold.cli.terminal.out import told
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs
from schemas.errors import RillfoldError


class Verb(NamedTuple):
    """Where a command lives, and its line in `--help`: listing verbs must not import them."""

    target: str
    line: str


# in the order in which `rillfold --help` shows them
VERBS: dict[str, Verb] = {
    "demo": Verb("rillfold.cli.operate.demo:demo", "Tell the whole story on this machine."),
    "up": Verb("rillfold.cli.operate.up:up", "Start Kafka and Postgres here, and the workers if you like."),
    "down": Verb("rillfold.cli.operate.up:down", "Stop the stack of this data folder."),
    "env": Verb("rillfold.cli.operate.env:env", "Print where all answers, for a shell and other clients."),
    "settings": Verb("rillfold.cli.operate.settings:settings", "Print what is in force here, and who says so."),
    "status": Verb("rillfold.cli.company.status:status", "Say how all is on one screen."),
    "doctor": Verb("rillfold.cli.operate.doctor:doctor", "Say what this machine lacks."),
    "worker": Verb("rillfold.cli.operate.worker:worker", "Run one of the long-lived processes."),
    "company": Verb("rillfold.cli.company.company:company", "Add a company, or list them."),
    "tools": Verb("rillfold.cli.company.tools:tools", "Register, list and revoke a company's tools."),
    "job": Verb("rillfold.cli.company.job:job", "Run a job, look at those that there are, or take one back."),
    "session": Verb("rillfold.cli.company.session:session", "What jobs were asked for together."),
    "memory": Verb("rillfold.cli.company.memory:memory", "What a company's agents are to remember."),
    "app": Verb("rillfold.cli.events.app:app", "Check an application of your own, and record its schemas."),
    "topics": Verb("rillfold.cli.events.topics:topics", "Create, check and list the topics."),
    "produce": Verb("rillfold.cli.events.produce:produce", "Send rows of a file to a topic."),
    "query": Verb("rillfold.cli.projections.query:query", "Show a projection's rows, with their proof."),
    "trace": Verb("rillfold.cli.events.trace:trace", "Print a job's tree of causes."),
    "lineage": Verb("rillfold.cli.adapters.lineage:lineage", "Say what made an adapter."),
    "key": Verb("rillfold.cli.operate.key:key", "List, make, rotate and revoke API keys."),
    "api": Verb("rillfold.cli.operate.api:api", "Serve the HTTP API."),
    "dataset": Verb("rillfold.cli.adapters.dataset:dataset", "Build training data from the log, or verify it."),
    "train": Verb("rillfold.cli.adapters.train:train", "Ask for an adapter."),
    "retrain": Verb("rillfold.cli.adapters.train:retrain", "Train an adapter again from the same offsets."),
    "runs": Verb("rillfold.cli.company.runs:runs", "List training runs, look at one, or take its wish back."),
    "adapters": Verb(
        "rillfold.cli.adapters.versions:adapters",
        "Show, publish, fetch and export adapters, promote or withdraw one.",
    ),
    "export-base": Verb("rillfold.cli.adapters.export:export_base", "Write a base model as GGUF, for llama.cpp."),
    "evaluate": Verb("rillfold.cli.adapters.evaluate:evaluate", "Say how good an adapter is, and how sure that is."),
    "auto-lora": Verb(
        "rillfold.cli.adapters.auto_lora:auto_lora", "Make an adapter for tools that nobody has data of."
    ),
    "serve": Verb("rillfold.cli.operate.serve:serve", "Serve models without the log."),
    "chat": Verb("rillfold.cli.adapters.chat:chat", "Talk to a company's adapter."),
    "projection": Verb("rillfold.cli.projections.projection:projection", "Prove projections against the log."),
    "dlq": Verb("rillfold.cli.events.dlq:dlq", "Look at refused records, and send them again."),
    "costs": Verb("rillfold.cli.company.costs:costs", "Say what a company's models have read and written."),
    "cost": Verb("rillfold.cli.operate.cost:cost", "Compare many agents on one model with a model each."),
    "bench": Verb("rillfold.cli.operate.bench:bench", "Measure, with peers in the same run."),
}


class LazyGroup(Verbs):
    """Start-up pays only for the verb that was asked for."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **options: Any) -> None:
        super().__init__(*args, **options)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._verbs:
            return None
        module, _, attribute = self._verbs[name].target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.line) for name, verb in self._verbs.items()])


@click.group(cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rillfold")
@click.option("--profile", metavar="NAME", help="Which API to ask, and by which key: a name of the file of profiles.")
def rillfold(profile: str | None) -> None:
    """Turn a company's event log into fine-tuned adapters, and serve them."""
    if profile is not None:
        from rillfold.settings import with_profile  # only now, as above

        click.get_current_context().with_resource(with_profile(profile))


def main() -> None:
    # What aiokafka would print on standard error comes to people as one of our own errors.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    sys.stdin = sys.stdin or ClosedInput()
    try:
        check_text(sys.argv[1:])
        if not "".join(sys.argv[1:2]).startswith("-"):
            _doubt()
        with told():
            rillfold(standalone_mode=True)
    except RillfoldError as error:
        _end(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _end(why(error))


def _doubt() -> None:
    from rillfold.settings import misspelt  # only now: `--help` pays for no settings

    for doubt in misspelt():
        click.echo(plain(f"rillfold: {doubt}"), err=True)


def _end(said: str) -> None:
    click.echo(plain(f"rillfold: {said}"), err=True)
    sys.exit(1)
