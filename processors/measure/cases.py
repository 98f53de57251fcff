"""What an adapter is asked to find out how good it is, and which rows of its company are."""

from collections.abc import Callable, Hashable, Iterable
from hashlib import sha256
from itertools import islice
from typing import Literal

import msgspec

from processors.dataset.lessons import Lesson, Row, conversation_of, was_wrong
from processors.dataset.turns import is_held_out, question
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


def held_out(rows: Iterable[Row], most: int, fits: Callable[[Case], bool], shown: bool = False) -> list[Case]:
    """Requests whose right answer is a call, so many at most; always the same ones, spread over the log.

    One of each conversation, the first: its others hang together with it, and would count one thing many times. So
    would two that a model cannot tell apart. One that does not fit is passed over: it would cost the others their
    run. An answer that was judged bad is no measure of anything. `shown`: tools stand in the prompt.
    """
    first: dict[Hashable, Row] = {}
    for row in sorted(_of(rows, calls=True), key=lambda each: each.turn):
        first.setdefault(conversation_of(row), row)
    return list(islice(filter(fits, _cases(first.values(), "held_out", shown)), most))


def watched(row: Row) -> bool:
    """Held out for the early end of a run, whose weights it chooses: a run with patience is not measured on it. By the
    question alone, so that all of a conversation is on one side."""
    return row.held_out and sha256(question(row.prompt).strip().encode()).digest()[-1] % 2 == 1


def of_nobodys_training(row: Row) -> bool:
    """Held out by the rule itself, whatever was selected. What one selection holds out beside, another one teaches."""
    return row.held_out and is_held_out(question(row.prompt))


def words(rows: Iterable[Row], most: int, fits: Callable[[Case], bool], shown: bool = False) -> list[Case]:
    """Those whose right answer is words alone."""
    return list(islice(filter(fits, _cases(_of(rows, calls=False), "words", shown)), most))


def tools_of(rows: Iterable[Row]) -> frozenset[str]:
    """The names that a company's own tools have."""
    return frozenset(call.name for row in rows for call in row.answer.tool_calls)


def _of(rows: Iterable[Row], calls: bool) -> list[Row]:
    return [row for row in rows if row.held_out and bool(row.answer.tool_calls) is calls and not was_wrong(row)]


def _cases(rows: Iterable[Row], suite: SuiteName, shown: bool) -> list[Case]:
    """Known by what a model is shown. Where that has several answers, content says which one counts."""
    found: dict[str, Case] = {}
    for row in sorted(rows, key=lambda each: _digest((each.prompt, each.answer, _tools(each)))):
        case = _case(row, suite, shown)
        found.setdefault(case.id, case)
    return sorted(found.values(), key=lambda case: (_digest(case.prompt), case.id))


def _case(row: Row, suite: SuiteName, shown: bool) -> Case:
    tools = _tools(row)
    seen = _digest((row.prompt, tools if shown else None))
    return Case(id=seen, suite=suite, prompt=row.prompt, tools=tools, right=row.answer)


def _tools(row: Row) -> str | None:
    return row.tools if isinstance(row, Lesson) else None


def _digest(what: object) -> str:
    return sha256(msgspec.json.encode(what)).hexdigest()
