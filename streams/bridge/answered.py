"""Which calls have their answer in the log. tool-call and tool-result share key rule and partition numbers."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from schemas.codec.codec import decode
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from streams.fairness.slices import Slices, in_turns, unheard
from streams.log.port import EventLog, Position, Record, records_in
from streams.log.tail import Tail

CLOCKS_MS = 600_000
"""So far the clocks of those who write calls and answers may differ."""
REMEMBERED = 100_000
"""Answers held in memory. Those beyond are looked up in the log."""

Key = tuple[str, str]
"""Company and call."""
Called = tuple[Record, ToolCallProposed]


class AnsweredCalls:
    """An answer is no older than its call: a repeat says the time of the first, whenever it is written.

    When there is no more room, the company with the most answers loses its oldest: never another's. Then the log is
    read again for calls of that company which are as old.
    """

    def __init__(
        self, log: EventLog, names: TopicNames, remembered: int = REMEMBERED, beat: Callable[[], None] = unheard
    ) -> None:
        self._log, self._beat = log, beat
        self._topic = names.wire(TOPIC_OF[ToolReturned].name)
        self._tail = Tail(log, self._topic, self._take, beat)
        self._left = remembered
        self._known: dict[str, dict[str, int]] = {}
        """Company to its calls, in the order of their answers, and when they were answered."""
        self._forgotten: dict[str, int] = {}
        """Company to the time of the newest answer of it that had no room."""
        self._from: dict[int, int] = {}
        self._times: dict[int, int] = {}
        """Partition to the offset, and to the time, from which on all answers were read."""

    async def catch_up(self, calls: Iterable[Called] = ()) -> None:
        """Everything that was answered up to now, from the time of the oldest of these calls on."""
        oldest: dict[int, int] = {}
        for record, call in calls:
            time, partition = _earliest(record, call), record.partition
            if time < self._times.get(partition, time + 1):
                oldest[partition] = min(time, oldest.get(partition, time))
        for partition, time in oldest.items():
            await self._begin(partition, time)
        await self._tail.catch_up({partition: self._from[partition] for partition in oldest})

    async def _begin(self, partition: int, time: int) -> None:
        """Where it was begun later, what lies between is read now."""
        start = (await self._since(time))[partition]
        if (first := self._from.get(partition)) is not None:
            async for record in self._answers(partition, start, first):
                self._take(record)
        self._from[partition], self._times[partition] = start, time

    async def among(self, calls: Sequence[Called]) -> set[Key]:
        """Those of them that are answered."""
        await self.catch_up(calls)
        found = {_key(call) for _, call in calls if _key(call) in self}
        doubtful: dict[int, list[Called]] = {}
        for record, call in calls:
            if _key(call) not in found and _earliest(record, call) <= self._forgotten.get(call.company, -1):
                doubtful.setdefault(record.partition, []).append((record, call))
        for partition, some in doubtful.items():
            found |= await self._looked_up(partition, some)
        return found

    def __contains__(self, key: Key) -> bool:
        company, call = key
        return call in self._known.get(company, ())

    def said(self, key: Key, position: Position, time: int) -> None:
        """Our own answer, where it lies now, and when it was written, in milliseconds."""
        if self._tail.known(position.partition, position.offset):
            self._remember(key, time)

    async def _looked_up(self, partition: int, some: Sequence[Called]) -> set[Key]:
        """Read until all are found, or to the end of what is known."""
        left, found = {_key(call) for _, call in some}, set[Key]()
        start = (await self._since(min(_earliest(record, call) for record, call in some)))[partition]
        async for record in self._answers(partition, start, self._tail.positions[partition]):
            if (key := _answered(record)) in left:
                left.remove(key)
                found.add(key)
                if not left:
                    break
        return found

    async def _since(self, time: int) -> Mapping[int, int]:
        return await self._log.offsets_at(self._topic, time)

    def _answers(self, partition: int, start: int, stop: int) -> AsyncIterator[Record]:
        return in_turns(records_in(self._log, self._topic, partition, start, stop), Slices(self._beat))

    def _take(self, record: Record) -> None:
        if (key := _answered(record)) is not None:
            self._remember(key, record.timestamp)

    def _remember(self, key: Key, time: int) -> None:
        if key in self:
            return
        company, call = key
        self._known.setdefault(company, {})[call] = time
        self._left -= 1
        if self._left < 0:
            self._forget()

    def _forget(self) -> None:
        company, calls = max(self._known.items(), key=lambda known: len(known[1]))
        time = calls.pop(next(iter(calls)))
        self._forgotten[company] = max(time, self._forgotten.get(company, -1))
        self._left += 1
        if not calls:
            del self._known[company]


def _key(call: ToolCallProposed) -> Key:
    return call.company, call.call


def _answered(record: Record) -> Key | None:
    event = decode(record.value, record.origin, record.timestamp, record.headers)
    return (event.company, event.call) if isinstance(event, ToolReturned) else None


def _earliest(record: Record, call: ToolCallProposed) -> int:
    """Milliseconds: before that nobody can have answered it."""
    return max(0, min(call.time // 1000, record.timestamp) - CLOCKS_MS)
