"""The line of one owner: who is most urgent goes first, and of the same urgency who came first."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

PASSED = 64
"""So many more urgent ones go before who came first of all, at most: what he waits for others may wait for, too."""
GARBAGE = 64

Item = TypeVar("Item")


class ByUrgency(Generic[Item]):
    """Lower priorities are more urgent. `place` says who came first."""

    def __init__(self) -> None:
        self._joined: dict[Item, int] = {}
        """By which joining each is here: whoever leaves and comes back joins anew, at the place that he had."""
        self._here: dict[int, Item] = {}
        """The same the other way. The heaps know joinings alone: nothing of who has left stays in memory."""
        self._joins = 0
        self._urgent: list[tuple[int, int, int]] = []
        self._oldest: list[tuple[int, int]] = []
        self._passed = 0

    def __len__(self) -> int:
        return len(self._joined)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._joined)

    def join(self, item: Item, place: int, priority: int = 0) -> None:
        self.leave(item)
        self._joins += 1
        self._joined[item] = self._joins
        self._here[self._joins] = item
        entries: list[tuple[list[Any], Any]] = [
            (self._urgent, (priority, place, self._joins)),
            (self._oldest, (place, self._joins)),
        ]
        for heap, entry in entries:
            if len(heap) > 2 * len(self._here) + GARBAGE:
                heap[:] = filter(self._counts, heap)
                heapify(heap)
            heappush(heap, entry)

    def leave(self, item: Item) -> bool:
        """Whether it was there."""
        joining = self._joined.pop(item, None)
        return joining is not None and self._here.pop(joining, None) is not None

    def goes(self, item: Item) -> bool:
        """It leaves because its turn has come."""
        self._passed = 0 if item == self._top(self._oldest) else self._passed + 1
        return self.leave(item)

    def first(self) -> Item | None:
        return self._top(self._oldest if self._passed >= PASSED else self._urgent)

    def _top(self, heap: list[Any]) -> Item | None:
        while heap and not self._counts(heap[0]):
            heappop(heap)
        return self._here[heap[0][-1]] if heap else None

    def _counts(self, entry: tuple[int, ...]) -> bool:
        return entry[-1] in self._here
