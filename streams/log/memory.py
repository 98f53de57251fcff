"""A log in memory with the contract of Kafka's: for tests, for the demo without a broker, for users' own suites."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from streams.errors import Fenced, MissingOffsets, ShutOut, TooLarge, UnknownTopic
from streams.fairness.slices import unheard
from streams.log.partitioner import partition_of
from streams.log.port import Outgoing, Position, Reached, Record, TopicPartition, TopicSpec, limit_of, size_of

READ_BATCH = 1000


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class _Partition:
    """Offsets in `records` rise but need not be dense: compaction and transaction markers leave gaps."""

    start: int = 0
    end: int = 0
    records: list[Record] = field(default_factory=list)

    def slice(self, start: int, stop: int, limit: int) -> list[Record]:
        first = bisect_left(self.records, start, key=_offset)
        last = bisect_left(self.records, stop, lo=first, key=_offset)
        return self.records[first : min(last, first + limit)]


def _offset(record: Record) -> int:
    return record.offset


class MemoryLog:
    """One process's log. `clock` gives milliseconds: a virtual one makes timestamps repeatable."""

    def __init__(self, clock: Callable[[], int] = wall_clock) -> None:
        self._clock = clock
        self._topics: dict[str, list[_Partition]] = {}
        self._specs: dict[str, TopicSpec] = {}
        self._groups: dict[str, _Group] = {}
        self._alone: dict[str, MemoryAlone] = {}
        self._keyless = count()
        self._grown = asyncio.Condition()

    async def create(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        absent = [spec for spec in topics if spec.name not in self._topics]
        for spec in absent:
            self._topics[spec.name] = [_Partition() for _ in range(spec.partitions)]
            self._specs[spec.name] = spec
        for group in self._groups.values():
            group.rebalance()
        return [spec.name for spec in absent]

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        return {topic: self._specs[topic] for topic in topics if topic in self._specs}

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        for record in records:
            self._partitions(record.topic)
            if size_of(record) > (limit := limit_of(self._specs[record.topic])):
                raise TooLarge(record.topic, size_of(record), limit)
        keyless = next(self._keyless)
        positions = [self._append_one(record, keyless) for record in records]
        async with self._grown:
            self._grown.notify_all()
        return positions

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, beat: Callable[[], None] = unheard
    ) -> AsyncIterator[Sequence[Record]]:
        log = self._partitions(topic)[partition]
        last = log.end if stop is None else stop
        while True:
            if start < log.start or last > log.end:
                raise MissingOffsets(topic, partition, start, stop, log.start, log.end)
            batch = log.slice(start, last, READ_BATCH)
            beat()
            if not batch:
                return
            yield batch
            start = batch[-1].offset + 1

    async def starts(self, topic: str) -> Mapping[int, int]:
        return {n: log.start for n, log in enumerate(self._partitions(topic))}

    async def ends(self, topic: str) -> Mapping[int, int]:
        return {n: log.end for n, log in enumerate(self._partitions(topic))}

    async def offsets_at(self, topic: str, timestamp: int) -> Mapping[int, int]:
        return {
            n: next((r.offset for r in log.records if r.timestamp >= timestamp), log.end)
            for n, log in enumerate(self._partitions(topic))
        }

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        self._partitions(topic)
        known = self._groups[group].committed if group in self._groups else {}
        return {partition: offset for (name, partition), offset in known.items() if name == topic}

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[MemorySubscription]:
        for topic in topics:
            self._partitions(topic)
        members = self._groups.setdefault(group, _Group(group, self))
        member = MemorySubscription(self, members, tuple(topics))
        members.join(member)
        try:
            yield member
        finally:
            members.leave(member)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[MemoryAlone]:
        one = self._alone[name] = MemoryAlone(self, name)
        yield one

    # What a broker does on its own: tests ask for it by name.

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Retention took everything below an offset."""
        log = self._partitions(topic)[partition]
        log.start = max(log.start, before)
        log.records = [record for record in log.records if record.offset >= before]

    def delete(self, topic: str) -> None:
        """Somebody has deleted a topic under whoever reads it."""
        del self._topics[topic], self._specs[topic]
        for group in self._groups.values():
            group.rebalance()

    def abort(self, records: Sequence[Outgoing]) -> None:
        """A transaction wrote these and was aborted: the offsets and one marker a partition are used up, for nobody."""
        touched: dict[TopicPartition, int] = defaultdict(int)
        for record in records:
            touched[record.topic, self._place(record, 0)] += 1
        for (topic, partition), used in touched.items():
            self._topics[topic][partition].end += used + 1

    def compact(self, topic: str) -> None:
        """Only the last record of each key stays, and no tombstone; offsets do not move."""
        for log in self._partitions(topic):
            last = {record.key: record.offset for record in log.records}
            log.records = [r for r in log.records if last[r.key] == r.offset and r.value is not None]

    def _partitions(self, topic: str) -> list[_Partition]:
        if topic not in self._topics:
            raise UnknownTopic(topic, "the memory log")
        return self._topics[topic]

    def _place(self, record: Outgoing, keyless: int) -> int:
        partitions = len(self._partitions(record.topic))
        if record.partition is not None:
            return record.partition
        return keyless % partitions if record.key is None else partition_of(record.key, partitions)

    def _append_one(self, record: Outgoing, keyless: int) -> Position:
        partition = self._place(record, keyless)
        log = self._topics[record.topic][partition]
        timestamp = self._clock() if record.timestamp is None else record.timestamp
        offset = log.end
        log.records.append(
            Record(record.topic, partition, offset, timestamp, record.key, record.value, tuple(record.headers))
        )
        log.end += 1
        return Position(record.topic, partition, offset)


class MemoryAlone:
    def __init__(self, log: MemoryLog, name: str) -> None:
        self._log, self._name = log, name

    async def append(self, records: Sequence[Outgoing], reached: Reached | None = None) -> Sequence[Position]:
        if self._log._alone[self._name] is not self:
            raise ShutOut(self._name)
        positions = await self._log.append(records)
        if reached is not None:
            group = self._log._groups.setdefault(reached.group, _Group(reached.group, self._log))
            group.committed.update(reached.offsets)
        return positions


@dataclass
class _Group:
    name: str
    log: MemoryLog
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    members: list[MemorySubscription] = field(default_factory=list)
    generation: int = 0

    def join(self, member: MemorySubscription) -> None:
        self.members.append(member)
        self.rebalance()

    def leave(self, member: MemorySubscription) -> None:
        if member in self.members:
            self.members.remove(member)
            member.positions = {}
            self.rebalance()

    def rebalance(self) -> None:
        """Range assignment, as on Kafka: equal partition numbers of co-partitioned topics meet in one member.

        Everybody starts again at what is committed, also where the owner stays the same.
        """
        self.generation += 1
        for member in self.members:
            member.positions = {}
            member.given = self.generation
        for topic in sorted({topic for member in self.members for topic in member.topics}):
            takers = [member for member in self.members if topic in member.topics]
            partitions = range(len(self.log._topics.get(topic, ())))
            for partition in partitions:
                taker = takers[partition * len(takers) // len(partitions)]
                first = self.log._topics[topic][partition].start
                taker.positions[topic, partition] = self.committed.get((topic, partition), first)


class MemorySubscription:
    def __init__(self, log: MemoryLog, group: _Group, topics: tuple[str, ...]) -> None:
        self._log = log
        self._group = group
        self.topics = topics
        self.positions: dict[TopicPartition, int] = {}
        self.given = 0

    async def poll(self, timeout: float = 1.0, limit: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        deadline = asyncio.get_running_loop().time() + timeout
        while not (taken := self._take(READ_BATCH if limit is None else limit)):
            if asyncio.get_running_loop().time() >= deadline:
                await asyncio.sleep(0)
                return {}
            await self._wait_until(deadline)
        return taken

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await asyncio.sleep(0)
        stale = sorted(set(offsets) - set(self.positions))
        if stale:
            raise Fenced(self._group.name, stale)
        self._group.committed.update(offsets)

    async def committed(self) -> Mapping[TopicPartition, int]:
        known = self._group.committed
        return {(t, p): known.get((t, p), self._log._topics[t][p].start) for t, p in self.positions}

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self.positions:
            raise Fenced(self._group.name, [partition])
        self.positions[partition] = offset

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.positions)

    def generation(self) -> int:
        return self.given

    def _take(self, limit: int) -> dict[TopicPartition, Sequence[Record]]:
        taken: dict[TopicPartition, Sequence[Record]] = {}
        for (topic, partition), position in list(self.positions.items()):
            log = self._log._topics[topic][partition]
            if position < log.start:
                raise MissingOffsets(topic, partition, position, None, log.start, log.end)
            batch = log.slice(position, log.end, limit)
            self.positions[topic, partition] = batch[-1].offset + 1 if batch else log.end
            limit -= len(batch)
            if batch:
                # Fair: a partition that was served goes to the end of the line.
                self.positions[topic, partition] = self.positions.pop((topic, partition))
                taken[topic, partition] = batch
            if limit == 0:
                break
        return taken

    async def _wait_until(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline), self._log._grown:
                await self._log._grown.wait()
        except TimeoutError:
            return
