"""One worker of a driver: a member of the group, its shards, and the step that folds what it is given."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from projections.projection import Projection
from rillfold.testing.clock import VirtualClock
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.errors import Fenced
from streams.fold.batch import Batch
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.fold.shard import Shard
from streams.log.port import EventLog, Record, Subscription, TopicPartition, extents
from streams.react.reaction import Reaction
from streams.react.reactor import Reactor
from streams.state.store import MemoryStore

State = TypeVar("State", bound=msgspec.Struct)
Handle = Callable[[Event, int], Sequence[Event]]
"""(event, microseconds of its record) -> the events that follow."""


class Consumer(NamedTuple):
    """A decision without a table: reads its topics, answers with events. Delivered at least once, like any group."""

    name: str
    topics: tuple[str, ...]
    handle: Handle


class Crashed(BaseException):
    """The worker died here. Not an error: nothing may catch it on the way out."""


class CrashPoint(FailPoint):
    """Dies by exception where the real one dies by signal, at the step that a test has armed."""

    def __init__(self) -> None:
        super().__init__()
        self._armed: str | None = None
        self._passes = 0

    def arm(self, step: str, passes: int = 1) -> None:
        FailPoint(f"{step}:{passes}")
        self._armed, self._passes = step, passes

    def reached(self, step: str) -> None:
        if step != self._armed:
            return
        self._passes -= 1
        if self._passes == 0:
            self._armed = None
            raise Crashed(step)


class Shared(NamedTuple):
    """What all workers of a driver share."""

    log: EventLog
    names: TopicNames
    group: str
    projections: Sequence[Projection[Any]]
    publish: Callable[[Sequence[Event]], Awaitable[None]]
    append: Callable[[str, int, list[tuple[bytes, bytes | None]]], Awaitable[int | None]]


class GroupMember:
    """Of a consumer group, until it crashes or leaves."""

    _member: Subscription

    def __init__(self, world: Shared) -> None:
        self.crash_point = CrashPoint()
        self._world, self._log = world, world.log
        self._alive = AsyncExitStack()

    async def join(self, group: str, topics: Sequence[str]) -> None:
        self._member = await self._alive.enter_async_context(self._log.subscribe(group, topics))

    async def stop(self) -> None:
        """The same for a crash and for a goodbye: whatever counts is in the log."""
        await self._alive.aclose()

    async def commit(self, tp: TopicPartition, next_: int) -> None:
        """If it is refused, the next poll brings the new assignment."""
        with suppress(Fenced):
            await self._member.commit({tp: next_})


class FoldWorker(GroupMember):
    """Loses its memory with a crash and has it back from the changelog."""

    def __init__(self, world: Shared) -> None:
        super().__init__(world)
        ports = Ports(world.publish, world.append, self.crash_point)
        self._folding = Folding(world.projections, world.names, ports)
        self._generation = 0
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await self.join(self._world.group, sorted(self._folding.sources))

    async def step(self, patience: float) -> bool:
        """Poll, take possession of what was given anew, fold, commit. Says whether anything came."""
        polled = await self._member.poll(patience)
        if self._member.generation() != self._generation:
            await self._take_possession()
            return True
        for (topic, partition), records in polled.items():
            await self._fold(topic, partition, records)
        return bool(polled)

    def shards(self, projection: Projection[Any]) -> Sequence[Shard[Any]]:
        return [shard for shard in self._folding.shards() if shard.projection is projection]

    def row(self, projection: Projection[State], key: str) -> list[State]:
        return [found[key] for shard in self.shards(projection) if key in (found := shard.load([key]))]

    def folded(self, topic: str, partition: int) -> int | None:
        """How far every projection of this source is folded here; None where it is not ours."""
        shards = self._folding.feeding(topic, partition)
        return min((shard.next(topic) or 0 for shard in shards), default=None)

    async def _take_possession(self) -> None:
        """Also of what we had before: in between somebody else may have folded further."""
        self._generation, mine = self._member.generation(), self._member.assignment()
        wanted = {(self._folding.changelog(p), n): p for topic, n in mine for p in self._reading(topic)}
        for shard in list(self._folding.shards()):
            if (shard.changelog, shard.partition) not in wanted:
                self._folding.close(shard.changelog, shard.partition)
        for (changelog, partition), projection in wanted.items():
            held = self._folding.shard(changelog, partition)
            await self._restore(held or self._folding.open(projection, partition, MemoryStore()))
        await self._folding.catch_up(list(self._folding.shards()), self._log, self._world.group)
        for topic, partition in sorted(mine):
            begin = self._folding.begin(topic, partition, (await extents(self._log, topic))[partition])
            if begin is None:
                raise self._folding.lost[topic, partition]
            self._positions[topic, partition] = begin
            with suppress(Fenced):
                await self._member.seek((topic, partition), begin)

    def _reading(self, topic: str) -> list[Projection[Any]]:
        return [p for p in self._world.projections if topic in map(self._world.names.wire, p.topics)]

    async def _restore(self, shard: Shard[Any]) -> None:
        position = shard.store.position()
        start = 0 if position is None else position + 1
        async for records in self._log.read(shard.changelog, shard.partition, start):
            shard.restore([(record.key or b"", record.value) for record in records], records[-1].offset)
        shard.restored()

    async def _fold(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        next_ = records[-1].offset + 1
        await self._folding.step(Batch(topic, partition, self._positions[topic, partition], next_, records))
        self._positions[topic, partition] = next_
        await self.commit((topic, partition), next_)  # refused or not: the markers know what counts


class ConsumerWorker(GroupMember):
    """Asks a consumer's decision for every event, and commits once what follows is acknowledged."""

    def __init__(self, world: Shared, consumer: Consumer) -> None:
        super().__init__(world)
        self._consumer = consumer

    async def start(self) -> None:
        topics = [self._world.names.wire(topic) for topic in self._consumer.topics]
        await self.join(f"{self._world.group}-{self._consumer.name}", topics)

    async def step(self, patience: float) -> bool:
        """Poll, decide, publish, commit: one record at a time, so that a crash repeats one."""
        polled = await self._member.poll(patience, limit=1)
        for (topic, partition), (record,) in polled.items():
            self.crash_point.reached("decoded")
            await self._world.publish(self._decide(record))
            self.crash_point.reached("published")
            await self.commit((topic, partition), record.offset + 1)
        return bool(polled)

    def _decide(self, record: Record) -> Sequence[Event]:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        return () if isinstance(event, Rejected) else self._consumer.handle(event, record.timestamp * 1000)


class ReactionWorker(GroupMember):
    """A reaction of an application. Pauses between its tries move the driver's clock, and nobody waits."""

    def __init__(self, world: Shared, reaction: Reaction, clock: VirtualClock, alone: bool) -> None:
        super().__init__(world)

        async def pause(seconds: float) -> None:
            clock.advance(seconds)

        self._reactor = Reactor(
            world.log,
            world.names,
            reaction,
            pause,
            lambda: clock() / 1000,
            stamp=clock,
            failpoint=self.crash_point,
            quiet=0,
            alone=alone,
        )

    async def start(self) -> None:
        await self._reactor.begin()
        await self.join(self._reactor.group, self._reactor.topics)

    async def stop(self) -> None:
        await self._reactor.end()
        await super().stop()

    async def step(self, patience: float) -> bool:
        return await self._reactor.step(self._member, patience)
