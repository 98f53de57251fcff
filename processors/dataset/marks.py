"""What was said of an answer afterwards: thumbs, corrections, tools' replies, and what who answered says of it himself.
A person's word counts before what machines say; of equals the last one wins."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from schemas.company import FeedbackGiven, Message
from schemas.tools import ToolReturned

HELD = 512
"""Bytes that a remembered thing takes in memory, beside its words."""


class TakenAt(NamedTuple):
    """When the log took a record, and where it stands. So ordered: what is taken away changes no order of the rest."""

    timestamp: int
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Telling(NamedTuple):
    """One time that somebody told a conversation. `good`: what he said of his own answer, if anything. `synthetic`: it
    was made, and nobody had it."""

    place: TakenAt
    id: str
    correlation: str
    good: bool | None
    synthetic: bool = False


class Opinion(NamedTuple):
    """What an answer is worth, the better one, and the last words of each kind about it."""

    good: bool | None
    correction: Message | None
    said_at: tuple[TakenAt, ...]


class WordKind(Enum):
    """The word of each that outranks its others decides; whatever else was said changes nothing."""

    UP = "a thumb up"
    DOWN = "a thumb down"
    BETTER = "a correction"


class _Word(NamedTuple):
    place: TakenAt
    good: bool | None
    correction: Message | None = None
    by_person: bool = False
    """By feedback; else a machine says it: who answers, of himself, or a tool."""

    @property
    def kind(self) -> WordKind:
        if self.correction is not None:
            return WordKind.BETTER
        return WordKind.UP if self.good else WordKind.DOWN

    @property
    def rank(self) -> tuple[bool, TakenAt]:
        """A mistake that is made again is no reason to believe that it is none."""
        return self.by_person, self.place

    @property
    def size(self) -> int:
        return HELD + (len(msgspec.json.encode(self.correction)) if self.correction else 0)


class _Replies:
    """Of one job's tools, the last of each."""

    def __init__(self) -> None:
        self.words: dict[str, _Word] = {}
        self._bad = 0
        self._newest_first: list[str] = []

    def take(self, tool: str, word: _Word) -> None:
        before = self.words.get(tool)
        if before is not None and before.place >= word.place:
            return
        self._bad += (not word.good) - (before is not None and not before.good)
        self.words[tool] = word
        self._newest_first = []

    def but_for(self, heard: set[str]) -> _Word | None:
        """All the others together, without going through them."""
        if len(heard) == len(self.words):
            return None
        if not self._newest_first:
            self._newest_first = sorted(self.words, key=lambda tool: self.words[tool].place, reverse=True)
        newest = next(tool for tool in self._newest_first if tool not in heard)
        bad = self._bad - sum(not self.words[tool].good for tool in heard)
        return _Word(self.words[newest].place, not bad)


class Marks:
    """Remembers what was said, by what it is about: the last word of each kind."""

    def __init__(self) -> None:
        self.size = 0
        self._said: dict[tuple[str, int | None, WordKind], _Word] = {}
        self._heard: set[TakenAt] = set()
        self._replies: dict[str, _Replies] = {}

    @property
    def unheard(self) -> int:
        """Words that count, of feedback that was about no answer whose opinions were asked for."""
        return sum(word.place not in self._heard for word in self._said.values())

    def feedback(self, event: FeedbackGiven, place: TakenAt) -> None:
        if event.good is None and event.correction is None:
            return
        word = _Word(place, event.good, event.correction, by_person=True)
        key = event.about, event.turn, word.kind
        before = self._said.get(key)
        if before is None or before.place < place:
            self._said[key] = word
            self.size += word.size - before.size if before else word.size + len(event.about)

    def reply(self, event: ToolReturned, place: TakenAt) -> None:
        """Of a job's replies of one tool the last one counts."""
        if event.job not in self._replies:
            self.size += HELD + len(event.job)
        replies = self._replies.setdefault(event.job, _Replies())
        self.size += 0 if event.tool in replies.words else HELD + len(event.tool)
        replies.take(event.tool, _Word(place, event.ok))

    def about(self, about: str, turn: int | None) -> list[_Word]:
        """What counts of all that was said of it; it is heard from now on."""
        words = [word for kind in WordKind if (word := self._said.get((about, turn, kind)))]
        self._heard.update(word.place for word in words)
        return words

    def replies(self, job: str) -> _Replies | None:
        return self._replies.get(job)


class Hearing:
    """Of one talk: what was said of its answers, telling by telling. It holds three words an answer, however many
    there were."""

    def __init__(self, marks: Marks, messages: Sequence[Message]) -> None:
        self._marks = marks
        self._turns = [turn for turn, message in enumerate(messages) if message.role == "assistant" and turn]
        called = ((turn, {call.name for call in messages[turn].tool_calls}) for turn in self._turns)
        self._calls = [(turn, names) for turn, names in called if names]
        self._last: dict[tuple[int, WordKind], _Word] = {}
        self._asked: set[str] = set()

    def hear(self, told: Telling) -> None:
        if not self._turns:
            return
        if told.good is not None:
            self._keep(self._turns[-1], _Word(told.place, told.good))
        self._said_of(told.id)
        if told.correlation not in self._asked:
            self._said_of(told.correlation)
            self._asked.add(told.correlation)
            self._replied(told.correlation)

    def opinions(self) -> dict[int, Opinion]:
        """By turn, of the answers that anybody judged."""
        words: dict[int, list[_Word]] = {}
        for (turn, _), word in self._last.items():
            words.setdefault(turn, []).append(word)
        return {turn: _opinion(said) for turn, said in words.items()}

    def _said_of(self, about: str) -> None:
        for turn in self._turns:
            for word in self._marks.about(about, turn):
                self._keep(turn, word)
        for word in self._marks.about(about, None):
            self._keep(self._turns[-1], word)

    def _replied(self, job: str) -> None:
        """A tool's reply judges the answers that call it; where none does, the last one, which made use of it."""
        if (replies := self._marks.replies(job)) is None:
            return
        heard = set[str]()
        for turn, names in self._calls:
            if mine := {name for name in names if name in replies.words}:
                self._keep(turn, _all_of(replies.words[tool] for tool in mine))
            heard |= mine
        if rest := replies.but_for(heard):
            self._keep(self._turns[-1], rest)

    def _keep(self, turn: int, word: _Word) -> None:
        key = turn, word.kind
        self._last[key] = max(self._last.get(key, word), word, key=lambda each: each.rank)


def _all_of(replies: Iterable[_Word]) -> _Word:
    """Several calls in one answer: it is right where every one of them was."""
    some = list(replies)
    return _Word(max(word.place for word in some), all(word.good for word in some))


def _opinion(words: Sequence[_Word]) -> Opinion:
    """A thumb up takes an earlier correction back; a thumb down leaves it standing. Where persons spoke, they alone."""
    good: bool | None = None
    correction: Message | None = None
    heard = [each for each in words if each.by_person] or words
    in_order = sorted(heard, key=lambda each: each.place)
    for word in in_order:
        if word.correction is not None:
            good, correction = True, word.correction
        elif word.good:
            good, correction = True, None
        elif correction is None:
            good = False
    return Opinion(good, correction, tuple(word.place for word in in_order))
