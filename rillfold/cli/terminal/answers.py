"""What a command answers: JSON for machines, or lines for people."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from rillfold.cli.terminal.plain import plain

if TYPE_CHECKING:
    from rich.tree import Tree

WIDEST = 10_000
Command = TypeVar("Command", bound=Callable[..., Any])


def as_json(what: str = "One JSON object for machines.") -> Callable[[Command], Command]:
    return click.option("--json", "as_json", is_flag=True, help=what)


def say_json(answer: object) -> None:
    click.echo(msgspec.json.encode(answer).decode())


def say(facts: Mapping[str, object]) -> None:
    for name, value in facts.items():
        click.echo(plain(f"{name:10} {value}"))


def say_tree(tree: "Tree") -> None:
    """Each line whole, and folded by the terminal alone: an id is copied from it."""
    from rich.console import Console

    Console(highlight=False, width=WIDEST).print(tree)


def moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
