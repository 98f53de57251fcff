"""Rules 1 and 2, as they always were: which turns are learned from, in which bytes, under which hash."""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from processors.dataset.selection import Selection
from schemas.company import AgentOutputIngested, ConversationIngested, Message, may_speak
from schemas.envelope import Event, Origin
from schemas.training import OffsetRange
from schemas.words import shallow

RULE = "answers"
"""Every assistant turn of a conversation, and every agent output that succeeded."""
FIRST, SECOND, THIRD = 1, 2, 3
"""The first left nothing out: what no model can be shown broke its runs."""

HELD_OUT_PERCENT = 20

TURNS = 1_000
"""Messages before an answer, at most. Its row repeats them all: without an end, one record would be gigabytes."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to learn: what stood before it, and where in the log it comes from."""

    topic: str
    partition: int
    offset: int
    turn: int
    held_out: bool
    """Never trained on; measured on."""
    prompt: tuple[Message, ...]
    answer: Message


class RuleUsed(msgspec.Struct, frozen=True, kw_only=True):
    """An application's rule that rows were made by."""

    name: str
    sha256: str
    """Of its code."""
    events: int
    """That it was asked about."""
    failed: int
    """Over which it raised: nothing is learned of them."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that it takes to make the same bytes again, and the hash that proves it.

    What a rule does not know is None, and not written: the manifests of older rules keep their bytes.
    """

    company: str
    rule: str
    rule_version: int
    ranges: tuple[OffsetRange, ...]
    records: int
    """Read within the ranges: up to rule 2 all companies' together, from rule 3 on the company's own."""
    rejected: int
    """Not understood: on the dead-letter topic, not in the dataset."""
    left_out: int | None = None
    """Answers that no model can be shown, nor what stood before them. Rule 1 left none out."""
    trained: int
    held_out: int
    rows_sha256: str
    select: Selection | None = None
    """Rule 3, like what follows."""
    tools_from: tuple[OffsetRange, ...] | None = None
    """Before the ranges: of these nothing is learned but which tools were on offer."""
    repeats: int | None = None
    """Conversations that had been told before, word for word."""
    bad: int | None = None
    """Rows whose answer was wrong and has no correction; not counted in `trained`."""
    corrected: int | None = None
    """Rows whose answer somebody put right."""
    synthetic: int | None = None
    """Rows of conversations that were made, and that nobody had; None: there are none."""
    rules: tuple[RuleUsed, ...] | None = None
    """Those of the selection; None: it names none."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(canonical(self)).hexdigest()


def is_held_out(question: str) -> bool:
    """By the question alone: the same one never stands on both sides, whatever else the log holds."""
    return int.from_bytes(hashlib.sha256(question.strip().encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT


def select(event: Event, origin: Origin, company: str, rule: int = SECOND) -> Iterator[Example]:
    """What one event teaches: nothing, one answer, or one for each assistant turn."""
    if event.company != company:
        return
    if isinstance(event, ConversationIngested):
        held_out = is_held_out(question(event.messages))
        for turn, message in enumerate(event.messages):
            if message.role == "assistant" and turn > 0:
                shown = turn if rule == FIRST else min(turn, TURNS)
                yield _example(origin, turn, held_out, event.messages[:shown], message)
    elif isinstance(event, AgentOutputIngested) and event.success:
        prompt = (Message(role="user", content=event.prompt),)
        answer = Message(role="assistant", content=event.output, tool_calls=event.tool_calls)
        yield _example(origin, 1, is_held_out(event.prompt), prompt, answer)


def teaches(example: Example) -> bool:
    """Known roles, a system message only first, calls with JSON objects, an end: one record spoils no run."""
    if len(example.prompt) >= TURNS:
        return False
    for index, message in enumerate((*example.prompt, example.answer)):
        if not may_speak(message.role, index):
            return False
        if not all(map(_is_object, (call.arguments for call in message.tool_calls))):
            return False
    return True


def _is_object(text: str) -> bool:
    """JSON that every reader of it takes: what is at the edge of one's patience is beyond another's."""
    try:
        return isinstance(msgspec.json.decode(text), dict) and shallow(text)
    except (msgspec.DecodeError, RecursionError):
        return False


def row(example: Example) -> bytes:
    """One line. The same example gives the same bytes everywhere."""
    return canonical(example) + b"\n"


def parse_row(line: bytes) -> Example:
    return msgspec.json.decode(line, type=Example)


class DatasetCounts:
    """Counts and hashes rows as they pass, so that no dataset has to fit into memory."""

    def __init__(self, rule: int = SECOND) -> None:
        self.rule = rule
        self.records = self.rejected = self.left_out = self.trained = self.held_out = 0
        self._digest = hashlib.sha256()

    def add(self, example: Example) -> bytes:
        """Its row; nothing, where it cannot be one."""
        if self.rule != FIRST and not teaches(example):
            self.left_out += 1
            return b""
        line = row(example)
        self._digest.update(line)
        self.held_out += example.held_out
        self.trained += not example.held_out
        return line

    def manifest(self, company: str, ranges: Sequence[OffsetRange]) -> Manifest:
        return Manifest(
            company=company,
            rule=RULE,
            rule_version=self.rule,
            ranges=in_order(ranges),
            records=self.records,
            rejected=self.rejected,
            left_out=None if self.rule == FIRST else self.left_out,
            trained=self.trained,
            held_out=self.held_out,
            rows_sha256=self._digest.hexdigest(),
        )


def in_order(ranges: Sequence[OffsetRange]) -> tuple[OffsetRange, ...]:
    """Sorted by topic, partition and offset, without empty ones: the order in which rows are read and hashed."""
    some = (part for part in ranges if part.stop > part.start)
    return tuple(sorted(some, key=lambda part: (part.topic, part.partition, part.start)))


def canonical(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def question(messages: Sequence[Message]) -> str:
    """What a person asked first: all answers of one conversation go to one side."""
    return next((message.content for message in messages if message.role == "user"), "")


def _example(origin: Origin, turn: int, held_out: bool, prompt: tuple[Message, ...], answer: Message) -> Example:
    return Example(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        turn=turn,
        held_out=held_out,
        prompt=prompt,
        answer=answer,
    )
