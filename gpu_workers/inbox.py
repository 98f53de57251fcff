"""Requests that were polled and are not finished: nothing is committed beyond the first of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from schemas.codec import decode
from schemas.training import TrainingRequested
from streams.log import Record, TopicPartition


class Item(NamedTuple):
    """A request, and where it stands in the log."""

    place: TopicPartition
    offset: int
    request: TrainingRequested


class Inbox:
    """Work goes on for minutes while the group is polled: this remembers what came meanwhile."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._polled: dict[TopicPartition, int] = {}

    def take(self, polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """A record that comes again after a rebalance is the one that is held already."""
        for place, records in polled.items():
            held = {item.offset for item in self._items if item.place == place}
            for record in records:
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, TrainingRequested) and record.offset not in held:
                    self._items.append(Item(place, record.offset, event))
                self._polled[place] = record.offset + 1

    def keep_only(self, assignment: Collection[TopicPartition]) -> None:
        """What belongs to another worker by now is that worker's to do."""
        self._items = [item for item in self._items if item.place in assignment]
        self._polled = {place: offset for place, offset in self._polled.items() if place in assignment}

    def first(self) -> Item | None:
        return self._items[0] if self._items else None

    def holds(self, item: Item) -> bool:
        return item in self._items

    def finished(self, item: Item) -> None:
        if item in self._items:
            self._items.remove(item)

    def committable(self) -> dict[TopicPartition, int]:
        """For each partition the next offset that somebody would have to read after a crash."""
        waiting: dict[TopicPartition, int] = {}
        for item in self._items:
            waiting[item.place] = min(item.offset, waiting.get(item.place, item.offset))
        return {place: min(offset, waiting.get(place, offset)) for place, offset in self._polled.items()}

    def forget(self) -> None:
        self._items.clear()
        self._polled.clear()
