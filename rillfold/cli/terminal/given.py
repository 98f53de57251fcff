"""What a command is given: numbers within bounds, and text that is text."""

import os
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import click

from rillfold.cli.terminal.plain import plain
from schemas.errors import Stop

MOST = 1_000_000_000


class Number(click.FloatRange):
    """No option means infinity, or a number that is none."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail(f"{value} is no number of the range {self._describe_range()}.", param, ctx)
        return found


def check_text(words: Sequence[str]) -> None:
    """Bytes that are no UTF-8 could be neither sent nor shown."""
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise Stop(f"{plain(word)!r} is not UTF-8. Give it in UTF-8.")


def folder_of(name: str) -> Path | None:
    """None: it is an adapter's name, which never begins as a path does."""
    if (folder := Path(name)).is_dir():
        return folder
    if name.startswith((".", "/", "~")):
        raise Stop(f"{name} is no folder. Name one that is there, or an adapter: COMPANY/ROLE.")
    return None


def why(error: OSError) -> str:
    """For an error that names a file and that nobody else has put into words."""
    what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{what}{error.strerror or error}. Name another place, or mend this one."
