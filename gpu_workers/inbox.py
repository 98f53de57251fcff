"""Where requests wait that were polled and are not finished: nothing is committed beyond the first of them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from schemas.training import TrainingRequested
from streams.log import TopicPartition

MOST = 100_000
"""Requests that wait here at once, of a few hundred bytes each; the rest waits in the log."""


class Item(NamedTuple):
    """Where a request stands in the log, and whose it is. Its words are read again when its turn comes."""

    place: TopicPartition
    offset: int
    company: str
    run: str

    @classmethod
    def of(cls, request: TrainingRequested, place: TopicPartition, offset: int) -> Item:
        return cls(place, offset, request.company, request.id)


class Inbox:
    """Work goes on for minutes while the group is polled: this remembers what came meanwhile.

    Companies take turns: whoever asks a thousand times waits for himself.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lines: OrderedDict[str, dict[tuple[TopicPartition, int], Item]] = OrderedDict()
        """A line a company; the company whose turn is longest ago stands first."""
        self._runs: Counter[tuple[str, str]] = Counter()
        self._polled: dict[TopicPartition, int] = {}

    def __len__(self) -> int:
        return self._runs.total()

    def full(self) -> bool:
        return len(self) >= self._most

    def add(self, item: Item) -> None:
        """A record that comes again after a rebalance is the one that is held already."""
        line = self._lines.setdefault(item.company, {})
        if (item.place, item.offset) not in line:
            line[item.place, item.offset] = item
            self._runs[item.company, item.run] += 1

    def passed(self, place: TopicPartition, offset: int) -> None:
        """All below the offset was polled: it is held here, or needs nothing more."""
        self._polled[place] = offset

    def has_run(self, company: str, run: str) -> bool:
        return (company, run) in self._runs

    def first(self) -> Item | None:
        line = next(iter(self._lines.values()), None)
        return next(iter(line.values())) if line else None

    def begun(self, item: Item) -> None:
        self._lines.move_to_end(item.company)

    def holds(self, item: Item) -> bool:
        return (item.place, item.offset) in self._lines.get(item.company, {})

    def finished(self, item: Item) -> None:
        line = self._lines.get(item.company, {})
        if line.pop((item.place, item.offset), None) is None:
            return
        self._runs[item.company, item.run] -= 1
        if not self._runs[item.company, item.run]:
            del self._runs[item.company, item.run]
        if not line:
            del self._lines[item.company]

    def keep_only(self, assignment: Collection[TopicPartition]) -> None:
        """What belongs to another worker by now is that worker's to do."""
        for item in [item for item in self._items() if item.place not in assignment]:
            self.finished(item)
        self._polled = {place: offset for place, offset in self._polled.items() if place in assignment}

    def committable(self) -> dict[TopicPartition, int]:
        """For each partition the next offset that somebody would have to read after a crash."""
        waiting: dict[TopicPartition, int] = {}
        for item in self._items():
            waiting[item.place] = min(item.offset, waiting.get(item.place, item.offset))
        return {place: min(offset, waiting.get(place, offset)) for place, offset in self._polled.items()}

    def forget(self) -> None:
        self._lines.clear()
        self._runs.clear()
        self._polled.clear()

    def _items(self) -> list[Item]:
        return [item for line in self._lines.values() for item in line.values()]
