"""What a command is given: numbers within bounds, text that is text, and names that something can have."""

import io
import os
import re
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import BinaryIO, NoReturn

import click

from rillfold.cli.terminal.plain import plain
from schemas.adapters import ROLE as A_ROLE
from schemas.errors import Stop
from schemas.words import COMPANY as A_COMPANY
from schemas.words import NAME as A_NAME
from schemas.words import NOTE as A_NOTE
from schemas.words import Word, fits

MOST = 1_000_000_000


class Number(click.FloatRange):
    """No option means infinity, or a number that is none."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail(f"{value} is no number of the range {self._describe_range()}.", param, ctx)
        return found


class GivenName(click.ParamType):
    """A name, held to its kind of word before anything is asked, read or sent in it."""

    def __init__(self, name: str, may_be: Callable[[str], object], says: str) -> None:
        self.name, self._may_be, self._says = name, may_be, says

    @classmethod
    def of(cls, name: str, word: Word) -> "GivenName":
        return cls(name, lambda value: value and fits(word, value), word.says)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not self._may_be(text):
            self.fail(plain(f"{text!r:.200} can name no {self.name}: {self._says}."), param, ctx)
        return text


def is_adapter(text: str) -> bool:
    """company/role, company/role@2, or company/role/2 as it was once written."""
    company, _, rest = text.partition("/")
    role = re.sub(r"[@/][0-9]+\Z", "", rest)
    return fits(A_COMPANY, company) and bool(A_ROLE.fullmatch(role))


COMPANY = GivenName.of("company", A_COMPANY)
ROLE = GivenName("role", A_ROLE.fullmatch, "1 to 64 letters, digits, _ . or -, and not . or - first")
AGENT = GivenName.of("agent", A_NOTE)
TOOL = GivenName.of("tool", A_NAME)
ADAPTER = GivenName("adapter", is_adapter, "write COMPANY/ROLE, or COMPANY/ROLE@VERSION")
FOLDER_OR_ADAPTER = GivenName(
    "adapter",
    lambda text: is_folder(text) or is_adapter(text),
    "name a folder that is there, or write COMPANY/ROLE or COMPANY/ROLE@VERSION",
)


def check_text(words: Sequence[str]) -> None:
    """Bytes that are no UTF-8 could be neither sent nor shown."""
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise Stop(f"{plain(word)!r} is not UTF-8. Give it in UTF-8.")


class ClosedInput(io.TextIOBase):
    """Stands for standard input where whoever began this had closed it: Python has None there, which every reader
    would meet as an error of its own."""

    def readline(self, size: int | None = -1, /) -> NoReturn:
        raise Stop("Standard input is closed, and this would read it. Give it a file or a pipe: `... < FILE`.")

    def read(self, size: int | None = -1, /) -> NoReturn:
        self.readline()

    @property
    def buffer(self) -> BinaryIO:
        self.readline()


def is_folder(name: str) -> bool:
    """By what is there, or by how it begins: no adapter's name begins as a path does."""
    return Path(name).is_dir() or name.startswith((".", "/", "~"))


def folder_of(name: str) -> Path | None:
    """None: it is an adapter's name."""
    if (folder := Path(name)).is_dir():
        return folder
    if is_folder(name):
        raise Stop(f"{name} is no folder. Name one that is there, or an adapter: COMPANY/ROLE.")
    return None


def why(error: OSError) -> str:
    """For an error that names a file and that nobody else has put into words."""
    what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{what}{error.strerror or error}. Name another place, or mend this one."
