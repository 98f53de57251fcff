"""What was said of an answer afterwards: thumbs, corrections, tools' replies. The last word wins."""

from collections.abc import Iterable, Iterator, Sequence
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
    """One time that somebody told a conversation. `good`: what he said of its answer, if anything."""

    place: TakenAt
    id: str
    correlation: str
    good: bool | None


class Opinion(NamedTuple):
    """What an answer is worth, the better one, and the words that say so."""

    good: bool | None
    correction: Message | None
    said_at: tuple[TakenAt, ...]


class _Word(NamedTuple):
    place: TakenAt
    good: bool | None
    correction: Message | None = None


class Marks:
    """Remembers what was said, by what it is about."""

    def __init__(self) -> None:
        self.size = 0
        self._said: dict[str, list[tuple[int | None, _Word]]] = {}
        self._heard: set[TakenAt] = set()
        self._replies: dict[str, dict[str, _Word]] = {}

    @property
    def unheard(self) -> int:
        """Words of feedback that were about no answer whose opinions were asked for."""
        return sum(word.place not in self._heard for said in self._said.values() for _, word in said)

    def feedback(self, event: FeedbackGiven, place: TakenAt) -> None:
        if event.good is None and event.correction is None:
            return
        self._said.setdefault(event.about, []).append((event.turn, _Word(place, event.good, event.correction)))
        self.size += HELD + (len(msgspec.json.encode(event.correction)) if event.correction else 0)

    def reply(self, event: ToolReturned, place: TakenAt) -> None:
        """Of a job's replies of one tool the last one counts."""
        replies = self._replies.setdefault(event.job, {})
        self.size += 0 if event.tool in replies else HELD
        word = _Word(place, event.ok)
        replies[event.tool] = max(word, replies.get(event.tool, word), key=lambda each: each.place)

    def opinions(self, messages: Sequence[Message], told: Iterable[Telling]) -> dict[int, Opinion]:
        """By turn, of the answers that anybody judged."""
        turns = [turn for turn, message in enumerate(messages) if message.role == "assistant" and turn]
        words: dict[int, list[_Word]] = {turn: [] for turn in turns}
        for each in told:
            for turn, word in self._words(messages, turns, each):
                if turn in words:
                    words[turn].append(word)
                    self._heard.add(word.place)
        return {turn: _opinion(said) for turn, said in words.items() if said}

    def _words(self, messages: Sequence[Message], turns: Sequence[int], told: Telling) -> Iterator[tuple[int, _Word]]:
        if not turns:
            return
        if told.good is not None:
            yield turns[-1], _Word(told.place, told.good)
        for about in {told.id, told.correlation}:
            for turn, word in self._said.get(about, ()):
                yield turns[-1] if turn is None else turn, word
        yield from self._replied(messages, turns, self._replies.get(told.correlation, {}))

    def _replied(
        self, messages: Sequence[Message], turns: Sequence[int], replies: dict[str, _Word]
    ) -> Iterator[tuple[int, _Word]]:
        """A tool's reply judges the answers that call it; where none does, the last one, which made use of it."""
        heard = set()
        for turn in turns:
            mine = {call.name for call in messages[turn].tool_calls} & replies.keys()
            heard |= mine
            if mine:
                yield turn, _all_of(replies[tool] for tool in mine)
        if rest := replies.keys() - heard:
            yield turns[-1], _all_of(replies[tool] for tool in rest)


def _all_of(replies: Iterable[_Word]) -> _Word:
    """Several calls in one answer: it is right where every one of them was."""
    some = list(replies)
    return _Word(max(word.place for word in some), all(word.good for word in some))


def _opinion(words: list[_Word]) -> Opinion:
    """A thumb up takes an earlier correction back; a thumb down leaves it standing."""
    good: bool | None = None
    correction: Message | None = None
    for word in sorted(words, key=lambda each: each.place):
        if word.correction is not None:
            good, correction = True, word.correction
        elif word.good:
            good, correction = True, None
        elif correction is None:
            good = False
    return Opinion(good, correction, tuple(sorted(word.place for word in words)))
