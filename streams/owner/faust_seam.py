"""What leans on Faust's insides (and aiokafka's below them): an upgrade breaks here, in `faust_tables.py`, or nowhere.

Faust hands an agent one message per record. Here the "message" is everything one fetch returned for one partition; its
offset is that of the last record. Acks, commits, rebalances, recovery and standby then work per batch, untouched.
What is relied on, by upstream name, stands in `tests/support/relied_on.py`: each is held against the installed version.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple, cast

import faust
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment as Assignment
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT
from faust.types.tuples import ConsumerMessage
from mode import Service

from streams.fold.batch import Batch
from streams.health.watch import Phase
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.client import close_client
from streams.log.kafka.fetched import by_batches
from streams.log.kafka.refused import RIGHTS, not_allowed
from streams.owner.shards import NOWHERE, ShardOwner
from streams.owner.share import level
from streams.owner.unled import Given, Unled

FETCH_WAIT_MS = 100
LOOK_SECONDS = 1.0
COMMIT_SECONDS = 5.0
HELD_BYTES = 64 << 20
"""Of memory, about, in all that waits for the fold: partitions are many, and packed batches small on the wire alone."""


class RowApp(faust.App):
    """A Faust app that asks `shard_owner` about its tables."""

    shard_owner: ShardOwner
    access: KafkaAccess

    def folded(self, batch: Batch) -> None:
        cast(BatchConsumer, self.consumer).let_go(batch)

    def phase(self) -> Phase:
        """May be asked from another thread."""
        if self.tables.actives_ready:
            return "working"
        return "restoring" if self.in_recovery else "joining"

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        await self.shard_owner.stop()


def owner_of(app: Any) -> ShardOwner:
    owner: ShardOwner = app.shard_owner
    return owner


@contextmanager
def to_the_end(app: Any) -> Iterator[None]:
    """What fails in here ends the process: Faust would log it, and go on with half of it done."""
    try:
        yield
    except Exception as error:
        owner_of(app).failed(error)
        raise


class Fetched(NamedTuple):
    """What one fetch returned: the records of [start, next). `start` is None where it began at an unknown place."""

    start: int | None
    next: int
    records: list[Any]
    weight: int
    """About how many bytes of memory they take."""


class Sought(NamedTuple):
    """Where the next fetch of a partition that was sought begins.

    `given` is what aiokafka knows of the partition, made anew each time it is given out: a seek that comes late, while
    a rebalance is under way, says nothing of where the next owner's fetches begin.
    """

    given: Any
    offset: int


class BatchThread(driver.AIOKafkaConsumerThread):
    """Runs in the consumer's own thread, so that seeks and fetches are seen in the order in which they happened."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sought: dict[Any, Sought] = {}

    @Service.task
    async def _look_for_a_refusal(self) -> None:
        """A group that does not take us says so to whoever asks for records. Faust asks when it is in."""
        while not self.should_stop:
            await self.sleep(LOOK_SECONDS)
            error = getattr(getattr(self._consumer, "_coordinator", None), "_pending_exception", None)
            if isinstance(error, RIGHTS):
                self._refused(error)

    @Service.task
    async def _look_for_other_topics(self) -> None:
        """Where nobody in the group knows that he leads it."""
        unled = Unled()
        while not self.should_stop:
            await self.sleep(LOOK_SECONDS)
            group = getattr(self._consumer, "_coordinator", None)
            # Whoever leads knows what the group is subscribed to, and looks himself.
            if group is None or group.generation < 0 or group._group_subscription is not None:
                continue
            consumer: Any = self._consumer
            known = consumer._client.cluster
            topics = {topic: len(known.partitions_for_topic(topic) or ()) for topic in consumer.subscription()}
            if unled.asks(Given(group.generation, topics), monotonic()):
                group.request_rejoin()

    def _refused(self, error: KafkaError) -> None:
        topics: Collection[str] = self._consumer.subscription() if self._consumer is not None else ()
        owner_of(self.app).failed(not_allowed(error, cast(RowApp, self.app).access, "Read", topics))

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust ties this to its own transactions; a source's producers may have theirs.
        consumer._isolation_level = "read_committed"
        # One request at a time: partitions with nothing new would hold up the others for so long.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        # Never idle: a restore fetches nothing here for as long as it takes, and whoever left the group for that would
        # begin it anew, for ever. Whether a worker gets on is the watchman's to say.
        self._busy = consumer._subscription.fetch_context()
        self._busy.__enter__()
        return consumer

    async def on_thread_stop(self) -> None:
        """As Faust does it, but for how aiokafka is closed: where its broker is away the thread would never end."""
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            await close_client(self._consumer)

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        # Before: while the seek waits for its positions, the first fetch from them may already happen.
        sought = {tp: Sought(_given(consumer, tp), offset) for tp, offset in partitions.items()}
        self.sought |= sought
        try:
            await super()._seek_wait(consumer, partitions)
        except BaseException:
            for tp, mine in sought.items():
                if self.sought.get(tp) is mine:
                    del self.sought[tp]
            raise

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> dict[TP, Fetched]:  # type: ignore[override]
        # Rows need no decoding: while they are restored, a whole fetch at once costs fewer turns.
        by_batches(consumer, None if self.app.in_recovery else self.app.conf.broker_max_poll_records)
        try:
            fetched = await super()._fetch_records(consumer, *args, **kwargs | {"max_records": None})
        except RIGHTS as error:
            self._refused(error)
            raise
        # No await from here: the positions are those that this very fetch has left.
        weight = consumer._fetcher._records.weight // max(1, len(fetched))
        return {tp: self._located(consumer, tp, records, weight) for tp, records in fetched.items()}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """aiokafka would ask without end where a topic is gone, and no rebalance could take it from us meanwhile. How
        far the fold is, the markers know."""
        known = self._ensure_consumer()._client.cluster.topics()
        there = {tp: offset for tp, offset in offsets.items() if tp.topic in known}
        try:
            return not there or await asyncio.wait_for(super()._commit(there), COMMIT_SECONDS)
        except TimeoutError:
            return False

    def _located(self, consumer: Any, tp: Any, records: list[Any], weight: int) -> Fetched:
        given, known = _given(consumer, tp), self.sought.get(tp)
        if known is None or known.given is not given:
            return Fetched(None, given.position, records, weight)
        self.sought[tp] = Sought(given, given.position)
        return Fetched(known.offset, given.position, records, weight)

    def stands_at(self, tp: Any) -> int | None:
        """Where the next fetch of a partition that was sought begins: also past what holds no record."""
        known = self.sought.get(tp)
        if known is None or self._consumer is None or _given(self._consumer, tp) is not known.given:
            return None
        return cast(int, known.given.position) if known.given.has_valid_position else None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.sought.clear()
        await super().on_partitions_revoked(revoked)


def _given(consumer: Any, tp: Any) -> Any:
    """What aiokafka knows of a partition that it has; None where it has it not."""
    given = consumer._subscription.subscription.assignment
    return None if given is None else given.state_value(tp)


class BatchConsumer(driver.Consumer):
    """Yields one message per partition fetch, and takes its starting points from the rows' markers."""

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._full: set[TP] = set()
        self._held = 0
        """Bytes of memory, about, of what waits for the fold or is being folded."""
        self._room = asyncio.Event()
        self._room.set()
        self._resumed = asyncio.Event()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._resumed.set()

    def on_buffer_full(self, tp: TP) -> None:
        """Stops all partitions, not this one: aiokafka asks a broker for no more while some of its records wait."""
        if not self.app.in_recovery:
            self._full.add(tp)
            self._look_for_room()

    def on_buffer_drop(self, tp: TP) -> None:
        self._full.discard(tp)
        self._look_for_room()

    def let_go(self, batch: Batch) -> None:
        """It is folded. Of what was dropped with a partition nobody says so: the next assignment begins at nothing."""
        self._held = max(0, self._held - batch.weight)
        self._look_for_room()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._held = 0
        self._look_for_room()
        await super().on_partitions_assigned(assigned, generation_id)

    def _look_for_room(self) -> None:
        if self._full or self._held >= HELD_BYTES:
            self._room.clear()
        else:
            self._room.set()

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP] | None]:
        """Where nothing may be fetched, as after each rebalance, Faust would sleep for a second."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        if not self._get_active_partitions():
            self._resumed.clear()
            await self.wait(self._resumed.wait(), timeout=1.0)
        return await super()._wait_next_records(timeout)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        if not self._room.is_set():
            await self.wait(self._room.wait(), timeout=timeout)
        if self._held >= HELD_BYTES:
            return
        try:
            fetched, active = await self._wait_next_records(timeout)
        except NoOffsetForPartitionError:
            return  # fetched before the seek, as below
        except OffsetOutOfRangeError as error:
            await self._not_in_the_log(error.args[0])
            return
        generation = self.app.consumer_generation_id
        if fetched is None or self.should_stop:
            return
        if not self.flow_active:
            # Given out anew meanwhile: then the recovery that follows seeks.
            with suppress(IllegalStateError):
                await self.perform_seek()
            return
        for tp, batch in cast(Mapping[TP, Fetched], fetched).items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if batch.start is None and not self._is_changelog_tp(tp):
                continue  # fetched before the seek to the marker, which makes it come again
            if active is None or tp in active:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                if not self._is_changelog_tp(tp):  # rows are taken as they come
                    self._held += batch.weight
                    self._look_for_room()
                yield tp, self._batch_message(tp, batch)

    async def _not_in_the_log(self, asked: Mapping[Any, int]) -> None:
        """A source stands still and is said; so does a copy of another worker's rows, or it is begun again."""
        thread = cast(BatchThread, self._thread)
        mine = {TP(*tp): offset for tp, offset in asked.items() if thread.stands_at(tp) == offset}
        sources = {tp: offset for tp, offset in mine.items() if not self._is_changelog_tp(tp)}
        starts = await self._begins(sources, sources) if sources else {}
        owner = owner_of(self.app)
        for tp in mine.keys() - sources.keys():
            if (start := await owner.follows(tp)) is None:
                self.pause_partitions([tp])
            else:
                starts[tp] = start
        await self.seek_wait(starts)

    async def _begins(self, sources: Collection[TP], read_to: Mapping[TP, int] = NOWHERE) -> dict[TP, int]:
        """Those that are not to be read from are not fetched any more."""
        with to_the_end(self.app):
            starts = dict(await owner_of(self.app).begins(sources, read_to))
        self.pause_partitions(tp for tp in sources if tp not in starts)
        return starts

    def _batch_message(self, tp: Any, fetched: Fetched) -> ConsumerMessage:
        last = fetched.records[-1]
        start = fetched.records[0].offset if fetched.start is None else fetched.start
        batch = Batch(tp.topic, tp.partition, start, fetched.next, fetched.records, fetched.weight)
        place = tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type
        generation = self.app.consumer_generation_id
        return ConsumerMessage(*place, [], None, cast(Any, batch), None, 0, 0, tp, generation_id=generation)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """The rows know better than the group how far a source is folded."""
        sources = [tp for tp in self.assignment() if not self._is_changelog_tp(tp)]
        owner_of(self.app).say_what_waits(sources, cast(RowAssignor, self.app.assignor).read())
        if not sources:
            return {}
        starts = await self._begins(sources)
        await self.seek_wait(starts)
        return starts

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch covers its own gaps."""

    def _new_offset(self, tp: TP) -> int | None:
        """Of what is acknowledged, as much as is folded: a batch that came too early is acknowledged as well."""
        acked = self._acked[tp]
        if not acked:
            return None
        acked.clear()
        self._acked_index[tp].clear()
        return owner_of(self.app).folded(tp)


class RowAssignor(PartitionAssignor):
    """The group's leader may be of another release, and know other tables: what it did not give us we do not follow.

    Faust would die of the difference. Whoever leads after the last worker of that release gives it.
    """

    def on_assignment(self, assignment: Any) -> None:
        metadata: Any = ClientMetadata.loads(self._decompress(assignment.user_data))
        given = dict(assignment.assignment)
        for topic, partitions in metadata.assignment.standbys.items():
            if topic in self._table_manager.changelog_topics:
                partitions[:] = [partition for partition in partitions if partition in given.get(topic, ())]
        user_data = self._compress(metadata.dumps())
        super().on_assignment(Assignment(assignment.version, assignment.assignment, user_data))

    def _global_table_standby_assignments(self, assignments: Any, partitions_by_topic: Mapping[str, int]) -> Any:
        """The last step of an assignment: before it each group of topics that go together is shared out."""
        together: dict[tuple[int, frozenset[str]], list[str]] = defaultdict(list)
        for topic, count in partitions_by_topic.items():
            members = frozenset(name for name, each in assignments.items() if topic in each.actives)
            together[count, members].append(topic)
        for (_, members), topics in together.items():
            level({name: assignments[name] for name in members}, topics)
        return super()._global_table_standby_assignments(assignments, partitions_by_topic)

    def read(self) -> set[TP]:
        """What the members of the group read, all of them together: none reads a topic that the leader did not find."""
        given = self.external_topic_distribution.values()
        return {TP(topic, partition) for each in given for topic, some in each.items() for partition in some}


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer


class BatchSchema(Schema):  # type: ignore[type-arg]
    """Nothing is decoded on the way: an event's value is the batch."""

    def compile(self, app: Any, **_: Any) -> Any:
        create = app.create_event

        async def decode(message: Any, **_: Any) -> EventT[Any]:
            event: EventT[Any] = create(None, message.value, (), message)
            return event

        return decode
