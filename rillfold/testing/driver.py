"""Runs projections and consumers over a log, one step at a time, on a clock that the test moves."""

import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import msgspec

from processors.dataset.lessons import Lesson
from processors.dataset.selection import Selection
from processors.dataset.taught import Rule, topics_of
from projections.digest import digest
from projections.projection import Projection
from rillfold.app.app import App
from rillfold.app.found import with_apps
from rillfold.testing.clock import VirtualClock
from rillfold.testing.member import Consumer, ConsumerWorker, Crashed, FoldWorker, ReactionWorker, Shared
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin, derived_id
from schemas.rejected import RecordRejected
from schemas.topics import TopicNames
from streams.history import refold, replay
from streams.log.kafka import admin
from streams.log.memory import MemoryLog
from streams.log.outgoing import Given, event_of, to_outgoing
from streams.log.port import EventLog, Outgoing, Position, TopicSpec, records_in
from streams.react.reaction import LETTERS, Reaction
from streams.react.together import letter_writers
from streams.state.changelog import topic_of
from streams.state.refusal import Refusal

State = TypeVar("State", bound=msgspec.Struct)

# A round in which nobody got anything waits this long: on a broker, for a rebalance or a fetch.
PATIENCE = 0.05


class Driver:
    """`async with Driver(log, [COMPANIES]) as d`: the engine, the bytes and the order of a commit are the real ones.

    An `App` in place of projections brings all of its own, its events and its reactions.

    `log` is a `MemoryLog`, or a `KafkaLog` where the same test shall run on a broker. A crashed worker has lost its
    memory and what it had not committed, and comes back at the next `settle`.
    """

    def __init__(
        self,
        log: EventLog,
        projections: Sequence[Projection[Any]] | App = (),
        *,
        consumers: Sequence[Consumer] = (),
        names: TopicNames | None = None,
        workers: int = 1,
    ) -> None:
        self.clock = _clock_beside(log)
        self.log, self.names = log, names or TopicNames()
        self._reactions: dict[str, Reaction] = {}
        self._rules: dict[str, Rule] = {}
        if isinstance(projections, App):
            with_apps([projections])
            self._reactions, self._rules = dict(projections.reactions), dict(projections.rules)
            projections = tuple(projections.projections.values())
        self._projections = tuple(projections)
        folded = {topic for each in self._projections for topic in each.topics}
        self._writers = {each.name for each in letter_writers(self._reactions.values(), folded)}
        self._consumers = tuple(consumers)
        group = f"{self.names.prefix}rillfold-driver"
        self._world = Shared(log, self.names, group, self._projections, self._publish, self._append)
        self._workers: dict[str, FoldWorker | ConsumerWorker | ReactionWorker] = {}
        self._crashed: list[str] = []
        self._count = workers if projections else 0
        self._sent = 0

    async def __aenter__(self) -> Self:
        await self.log.create(self._topics())
        folds, consumers = (f"worker-{n + 1}" for n in range(self._count)), (c.name for c in self._consumers)
        for name in (*folds, *consumers, *self._reactions):
            await self._start(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers.values():
            await worker.stop()

    # What a test puts in.

    async def send(self, given: Given) -> Position:
        """An event, or a dict that may leave out id (counted), time (the clock's), version and correlation."""
        self._sent += 1
        event = event_of(given, lambda: derived_id("driver", self._sent), self.clock() * 1000)
        return await self._put(to_outgoing(event, self.names))

    async def send_bytes(self, topic: str, value: bytes, key: bytes | None = None) -> Position:
        """Whatever a stranger may put on one of our topics."""
        return await self._put(Outgoing(self.names.wire(topic), key, value))

    async def crash(self, name: str, at: str | None = None, passes: int = 1) -> None:
        """Now, or at a step of its next commit: decoded, published, appended or stored."""
        if at is not None:
            self._workers[name].crash_point.arm(at, passes)
            return
        await self._workers.pop(name).stop()
        self._crashed.append(name)

    async def rebalance(self, reaction: str | None = None) -> None:
        """A stranger joins the fold's group, or a reaction's, takes what it is given, does nothing, and leaves."""
        group, topics = self._world.group, self._sources()
        if reaction is not None:
            group, topics = self._group_of(self._reactions[reaction])
        async with self.log.subscribe(group, topics) as stranger:
            while not stranger.assignment():
                await self._round(PATIENCE)
                await stranger.poll(0, limit=1)

    async def settle(self) -> None:
        """Until everything in the log is folded and handled, and nothing more follows from it."""
        while self._crashed:
            await self._start(self._crashed.pop())
        patience = 0.0
        while await self._behind():
            patience = 0.0 if await self._round(patience) else PATIENCE
            while self._crashed:
                await self._start(self._crashed.pop())

    # What a test looks at.

    def query(self, projection: Projection[State], key: str) -> State | None:
        """A row, put together from its parts where the key rule spreads them."""
        parts = [part for worker in self._fold_workers() for part in worker.row(projection, key)]
        if not parts:
            return None
        return parts[0] if projection.merge is None else reduce(projection.merge, parts)

    async def digest(self, projection: Projection[Any]) -> str:
        """Of all rows as the workers hold them; fails where a changelog says something else."""
        held = await refold.held(self.log, projection, topic_of(projection, self.names.prefix))
        durable = {partition: part.rows for partition, part in held.items() if part.rows}
        assert self._rows(projection) == durable, f"the workers' rows of {projection.name} are not its changelog's"
        return digest(durable)

    async def refold(self, projection: Projection[Any]) -> str:
        """The digest that a fresh fold of the log gives: what `digest` must be, whatever happened on the way."""
        held = await refold.held(self.log, projection, topic_of(projection, self.names.prefix))
        fresh = {
            partition: await refold.refold(self.log, projection, self.names, partition, part)
            for partition, part in held.items()
        }
        untaken = [str(each) for one in fresh.values() for each in one.untaken]
        assert not untaken, f"a fresh fold does not take what was taken before: {untaken[:3]}"
        return digest({partition: one.rows for partition, one in fresh.items()})

    def refused(self, projection: Projection[Any]) -> list[Refusal]:
        """The events that the projection did not take, by partition and offset."""
        found = [
            each for worker in self._fold_workers() for shard in worker.shards(projection) for each in shard.refused()
        ]
        return sorted(found, key=lambda each: (each.partition, each.offset))

    async def events(self, topic: str) -> list[Event]:
        """Every event of one of our topics, by partition and offset."""
        wire, found = self.names.wire(topic), []
        for partition in await self.log.ends(wire):
            async for batch in self.log.read(wire, partition, 0):
                for record in batch:
                    event = decode(record.value, Origin(wire, partition, record.offset), record.timestamp)
                    if isinstance(event, Event):
                        found.append(event)
        return found

    async def dead_letters(self) -> list[RecordRejected]:
        return [event for event in await self.events("dead-letter") if isinstance(event, RecordRejected)]

    async def dataset(self, company: str, *rules: str) -> list[Lesson]:
        """The rows of a dataset of all that is in the log, with what the application's rules make of it: orders.v1."""
        there = self._rules
        ranges = await replay.everything_up_to_now(self.log, self.names, beside=topics_of(rules, there))
        with TemporaryDirectory() as folder:
            rows, select = Path(folder) / "rows", Selection(rules=rules)
            await replay.build(self.log, self.names, company, ranges, rows, select=select, rules=there)
            return [msgspec.json.decode(line, type=Lesson) for line in rows.read_bytes().splitlines()]

    # How it runs.

    async def _round(self, patience: float) -> bool:
        """Every worker takes a step, in the order of their names. Says whether anybody got anything."""
        moved = False
        for name, worker in sorted(self._workers.items()):
            try:
                moved |= await worker.step(patience)
            except Crashed:
                await self.crash(name)
                moved = True
        return moved

    async def _behind(self) -> bool:
        for topic in self._sources():
            for partition, end in (await self.log.ends(topic)).items():
                known = [worker.folded(topic, partition) for worker in self._fold_workers()]
                folded = [next_ for next_ in known if next_ is not None]
                if not folded or await self._unread(topic, partition, max(folded), end):
                    return True
        groups = [(f"{self._world.group}-{c.name}", [*map(self.names.wire, c.topics)]) for c in self._consumers]
        groups += map(self._group_of, self._reactions.values())
        for group, topics in groups:
            for topic in topics:
                committed = await self.log.committed(group, topic)
                for partition, end in (await self.log.ends(topic)).items():
                    if await self._unread(topic, partition, committed.get(partition, 0), end):
                        return True
        return False

    async def _unread(self, topic: str, partition: int, next_: int, end: int) -> bool:
        """Offsets that hold no record, such as a transaction's end, are read by nobody, nor is what has expired."""
        next_ = max(next_, (await self.log.starts(topic))[partition])
        return bool([record async for record in records_in(self.log, topic, partition, next_, end)])

    def _group_of(self, reaction: Reaction) -> tuple[str, list[str]]:
        return reaction.group(self.names), [self.names.wire(reaction.topic), self.names.wire(LETTERS)]

    async def _start(self, name: str) -> None:
        worker = self._made(name)
        await worker.start()
        self._workers[name] = worker

    def _made(self, name: str) -> FoldWorker | ConsumerWorker | ReactionWorker:
        if name in self._reactions:
            return ReactionWorker(self._world, self._reactions[name], self.clock, name in self._writers)
        consumer = next((consumer for consumer in self._consumers if consumer.name == name), None)
        return ConsumerWorker(self._world, consumer) if consumer else FoldWorker(self._world)

    def _fold_workers(self) -> list[FoldWorker]:
        return [worker for worker in self._workers.values() if isinstance(worker, FoldWorker)]

    def _rows(self, projection: Projection[Any]) -> dict[int, dict[str, msgspec.Struct]]:
        shards = [shard for worker in self._fold_workers() for shard in worker.shards(projection)]
        return {shard.partition: rows for shard in shards if (rows := dict(shard.rows()))}

    def _sources(self) -> list[str]:
        return sorted({self.names.wire(topic) for projection in self._projections for topic in projection.topics})

    def _topics(self) -> list[TopicSpec]:
        partitions = {p: self.names.partitions(p.topics[0]) for p in self._projections}
        changelogs = [
            TopicSpec(topic_of(projection, self.names.prefix), count, {"cleanup.policy": "compact"})
            for projection, count in partitions.items()
        ]
        return [*admin.wanted(self.names), *changelogs]

    async def _put(self, record: Outgoing) -> Position:
        (position,) = await self.log.append([record._replace(timestamp=self.clock())])
        return position

    async def _publish(self, events: Sequence[Event]) -> None:
        records = [to_outgoing(event, self.names)._replace(timestamp=self.clock()) for event in events]
        await self.log.append(records)

    async def _append(self, changelog: str, partition: int, rows: list[tuple[bytes, bytes | None]]) -> int | None:
        now = self.clock()
        positions = await self.log.append(
            [Outgoing(changelog, key, value, partition=partition, timestamp=now) for key, value in rows]
        )
        return positions[-1].offset


def _clock_beside(log: EventLog) -> VirtualClock:
    """A broker deletes by its own clock what is older than its topic keeps it, so there a test begins today."""
    return VirtualClock() if isinstance(log, MemoryLog) else VirtualClock(time.time_ns() // 1_000_000)
