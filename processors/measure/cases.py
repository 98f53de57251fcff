"""What an adapter is asked to find out how good it is, and which rows of its company are."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Literal, Protocol

import msgspec

from schemas.company import Message

SuiteName = Literal["held_out", "foreign_tools", "irrelevance", "words"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One request, and what is right."""

    id: str
    suite: SuiteName
    prompt: tuple[Message, ...]
    tools: str | None = None
    """On offer, as JSON."""
    shown: bool = False
    """They stand in the prompt whoever is asked; else only for whom they were in training."""
    right: Message | None
    """None: any words, and no call."""


class MeasuredRow(Protocol):
    """Of a dataset, by whatever rule."""

    @property
    def held_out(self) -> bool: ...
    @property
    def prompt(self) -> tuple[Message, ...]: ...
    @property
    def answer(self) -> Message: ...


def held_out(rows: Iterable[MeasuredRow], most: int, fits: Callable[[Case], bool]) -> list[Case]:
    """Requests whose right answer is a call, so many at most; always the same ones, spread over the log.

    One that does not fit is passed over: it would cost the others their run. A repeat says nothing new, and an answer
    that was judged bad is no measure of anything.
    """
    return list(islice(filter(fits, _of(rows, "held_out")), most))


def words(rows: Iterable[MeasuredRow], most: int, fits: Callable[[Case], bool]) -> list[Case]:
    """Those whose right answer is words alone."""
    return list(islice(filter(fits, _of(rows, "words")), most))


def tools_of(rows: Iterable[MeasuredRow]) -> frozenset[str]:
    """The names that a company's own tools have."""
    return frozenset(call.name for row in rows for call in row.answer.tool_calls)


def _of(rows: Iterable[MeasuredRow], suite: Literal["held_out", "words"]) -> Iterator[Case]:
    calls = suite == "held_out"
    some = (row for row in rows if row.held_out and bool(row.answer.tool_calls) is calls)
    cases = {case.id: case for case in (_case(row, suite) for row in some if getattr(row, "good", None) is not False)}
    return iter(sorted(cases.values(), key=lambda case: _digest(case.prompt)))


def _case(row: MeasuredRow, suite: SuiteName) -> Case:
    tools = getattr(row, "tools", None)
    return Case(
        id=_digest((row.prompt, row.answer, tools)), suite=suite, prompt=row.prompt, tools=tools, right=row.answer
    )


def _digest(what: object) -> str:
    return sha256(msgspec.json.encode(what)).hexdigest()
