"""The first open offset of each partition, whatever the order in which they open and close."""

from heapq import heappop, heappush

from streams.log.port import TopicPartition


class Floors:
    def __init__(self) -> None:
        self._open: dict[TopicPartition, set[int]] = {}
        self._heaps: dict[TopicPartition, list[int]] = {}
        """Every open offset, and some that are closed: those go when they come to the top."""

    def hold(self, place: TopicPartition, offset: int) -> None:
        self._open.setdefault(place, set()).add(offset)
        heappush(self._heaps.setdefault(place, []), offset)

    def release(self, place: TopicPartition, offset: int) -> None:
        still = self._open[place]
        still.remove(offset)
        if not still:
            del self._open[place], self._heaps[place]

    def of(self, place: TopicPartition, following: int) -> int:
        """`following` where nothing below it is open."""
        still, heap = self._open.get(place), self._heaps.get(place)
        if not still or not heap:
            return following
        while heap[0] not in still:
            heappop(heap)
        return min(heap[0], following)
