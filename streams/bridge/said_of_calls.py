"""What the log says of calls: which are answered, and whose jobs are taken back.

The topics on which it is said share key rule and partition numbers with tool-call.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.jobs import JobWithdrawn
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from streams.bridge.look import Look
from streams.fairness.slices import Slices, in_turns, unheard
from streams.log.port import EventLog, Position, Record, records_in
from streams.log.tail import Tail

CLOCKS_MS = 600_000
"""So far the clocks of those who write calls, and of those who write of them, may differ."""
REMEMBERED = 100_000
"""Held in memory. What is beyond is looked up in the log."""

Key = tuple[str, str]
"""A company, and its call or job."""
Called = tuple[Record, ToolCallProposed]


class Saying(NamedTuple):
    """An event that says something of calls, and the word by which it means one."""

    event: type[Event]
    word: str

    def key(self, event: Event) -> Key:
        return event.company, getattr(event, self.word)


ANSWERS, WITHDRAWALS = Saying(ToolReturned, "call"), Saying(JobWithdrawn, "job")


class SaidOfCalls:
    """It is no older than the call: a repeat says the time of the first, whenever it is written. Where a withdrawal is
    older, the saga has read it, and proposes no call.

    When there is no more room, the company of which most was said loses its oldest: never another's. Then the log is
    read again for calls of that company which are as old.
    """

    def __init__(
        self,
        log: EventLog,
        names: TopicNames,
        what: Saying = ANSWERS,
        remembered: int = REMEMBERED,
        beat: Callable[[], None] = unheard,
    ) -> None:
        self._log, self._beat, self._what = log, beat, what
        self._look = Look(what.event)
        self._topic = names.wire(TOPIC_OF[what.event].name)
        self._tail = Tail(log, self._topic, self._take, beat)
        self._left = remembered
        self._known: dict[str, dict[str, int]] = {}
        """Company to its calls, or jobs, in the order in which it was said of them, and when."""
        self._forgotten: dict[str, int] = {}
        """Company to the time of the newest that had no room."""
        self._from: dict[int, int] = {}
        self._times: dict[int, int] = {}
        """Partition to the offset, and to the time, from which on all was read."""

    async def catch_up(self, calls: Iterable[Called] = ()) -> None:
        """Everything that was said up to now, from the time of the oldest of these calls on."""
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
            async for record in self._said(partition, start, first):
                self._take(record)
        self._from[partition], self._times[partition] = start, time

    async def among(self, calls: Sequence[Called]) -> set[Key]:
        """Those of them of which it was said."""
        await self.catch_up(calls)
        found = {key for _, call in calls if (key := self._what.key(call)) in self}
        doubtful: dict[int, list[Called]] = {}
        for record, call in calls:
            if self._what.key(call) not in found and _earliest(record, call) <= self._forgotten.get(call.company, -1):
                doubtful.setdefault(record.partition, []).append((record, call))
        for partition, some in doubtful.items():
            found |= await self._looked_up(partition, some)
        return found

    def __contains__(self, key: Key) -> bool:
        company, word = key
        return word in self._known.get(company, ())

    def of(self, call: ToolCallProposed) -> bool:
        """As far as it is remembered."""
        return self._what.key(call) in self

    def said(self, key: Key, position: Position, time: int) -> None:
        """By ourselves: where it lies now, and when it was written, in milliseconds."""
        if self._tail.known(position.partition, position.offset):
            self._remember(key, time)

    async def _looked_up(self, partition: int, some: Sequence[Called]) -> set[Key]:
        """Read until all are found, or to the end of what is known."""
        left, found = {self._what.key(call) for _, call in some}, set[Key]()
        start = (await self._since(min(_earliest(record, call) for record, call in some)))[partition]
        async for record in self._said(partition, start, self._tail.positions[partition]):
            if (key := self._heard(record)) in left:
                left.remove(key)
                found.add(key)
                if not left:
                    break
        return found

    async def _since(self, time: int) -> Mapping[int, int]:
        return await self._log.offsets_at(self._topic, time)

    def _said(self, partition: int, start: int, stop: int) -> AsyncIterator[Record]:
        return in_turns(records_in(self._log, self._topic, partition, start, stop), Slices(self._beat))

    def _take(self, record: Record) -> None:
        if (key := self._heard(record)) is not None:
            self._remember(key, record.timestamp)

    def _heard(self, record: Record) -> Key | None:
        if not self._look.may_be(record.value):
            return None
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        return self._what.key(event) if isinstance(event, self._what.event) else None

    def _remember(self, key: Key, time: int) -> None:
        if key in self:
            return
        company, word = key
        self._known.setdefault(company, {})[word] = time
        self._left -= 1
        if self._left < 0:
            self._forget()

    def _forget(self) -> None:
        company, words = max(self._known.items(), key=lambda known: len(known[1]))
        time = words.pop(next(iter(words)))
        self._forgotten[company] = max(time, self._forgotten.get(company, -1))
        self._left += 1
        if not words:
            del self._known[company]


def _earliest(record: Record, call: ToolCallProposed) -> int:
    """Milliseconds: before that nobody can have said anything of it."""
    return max(0, min(call.time // 1000, record.timestamp) - CLOCKS_MS)
