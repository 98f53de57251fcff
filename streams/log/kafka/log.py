"""The event log on Kafka, by aiokafka: idempotent appends, bounded committed reads, consumer groups."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from schemas.codec.compat import check_at_start
from streams.errors import AppendFailed, MissingOffsets, TooLarge, UnknownTopic, Unreachable
from streams.fairness.slices import unheard
from streams.log.kafka.access import Client, KafkaAccess
from streams.log.kafka.alone import KafkaAlone
from streams.log.kafka.appends import Placed, append_in_batches, place
from streams.log.kafka.client import close_client, start_client
from streams.log.kafka.fetched import by_batches
from streams.log.kafka.group import Assignments, KafkaSubscription, to_records
from streams.log.kafka.refused import RIGHTS, by_name, look_for_rights, not_allowed
from streams.log.port import Learn, Outgoing, Position, Record, TopicSpec, limit_of, nothing_to_learn, size_of

# A read without an end in sight waits this long for the next fetch before it looks at its position again: the tail
# may hold nothing but transaction markers, which move the position and deliver nothing.
READ_WAIT_MS = 100
READ_BYTES = 8 << 20
"""Of one source, fetched, and opened, at once: whoever puts sources in order reads several together."""
DELETED_SECONDS = 1.0
"""Without an answer for so long it is asked whether the topic is there at all."""
PRODUCED_BATCH_BYTES = 512 << 10


class KafkaLog:
    """Connects when it is first used; `async with` closes what was opened. Servers alone stand for an open door."""

    def __init__(
        self,
        access: KafkaAccess | str,
        *,
        client_id: str = "rillfold",
        session_timeout: float = 15.0,
        max_poll_interval: float = 300.0,
        learn: Learn = nothing_to_learn,
    ) -> None:
        self._access = KafkaAccess(access) if isinstance(access, str) else access
        self._learn = learn
        self._client_id = client_id
        self._group_options = {
            "session_timeout_ms": int(session_timeout * 1000),
            "heartbeat_interval_ms": int(min(1.0, session_timeout / 4) * 1000),
            "max_poll_interval_ms": int(max_poll_interval * 1000),
            "partition_assignment_strategy": (RangePartitionAssignor,),
        }
        self._clients: dict[type, Any] = {}
        self._appending: Counter[AIOKafkaProducer] = Counter()
        self._opening = asyncio.Lock()
        self._specs: dict[str, TopicSpec] = {}

    async def __aenter__(self) -> Self:
        check_at_start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        while self._clients:
            await close_client(self._clients.popitem()[1])

    async def create(self, topics: Sequence[TopicSpec]) -> Sequence[str]:
        # A broker asks who may create before it looks what stands: who only reads need not be allowed to.
        standing = await self.describe([topic.name for topic in topics])
        absent = [topic for topic in topics if topic.name not in standing]
        if not absent:
            return []
        async with by_name(self._access, "Create", [topic.name for topic in absent]):
            # -1 and {}: as many replicas as the broker's default says.
            wanted = [NewTopic(t.name, t.partitions, -1, {}, dict(t.config)) for t in absent]
            response = await self._administered(lambda admin: admin.create_topics(wanted))
        created = []
        for name, code, *detail in response.topic_errors:
            error = kafka.for_code(code)
            if issubclass(error, RIGHTS):
                raise not_allowed(error(), self._access, "Create", [name])
            if error not in (kafka.NoError, kafka.TopicAlreadyExistsError):
                raise AppendFailed(name, f"the broker refused to create it: {error.__name__} {detail}")
            if error is kafka.NoError:
                created.append(name)
            # Another process may have made it this very moment.
            await self._visible(name)
        return created

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        async with by_name(self._access, "Describe", topics):
            described = await self._administered(lambda admin: admin.describe_topics(list(topics))) if topics else []
            look_for_rights((each["topic"], each["error_code"]) for each in described)
        async with by_name(self._access, "DescribeConfigs", topics):
            counts = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
            resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in counts]
            responses = await self._administered(lambda admin: admin.describe_configs(resources)) if resources else []
            found = [resource for response in responses for resource in response.resources]
            look_for_rights((topic, code) for code, _, _, topic, _ in found)
        return {
            topic: TopicSpec(topic, counts[topic], {name: value for name, value, *_ in entries})
            for _, _, _, topic, entries in found
        }

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        placed, topics = await self.placed(records), sorted({record.topic for record in records})
        async with by_name(self._access, "Write", topics):
            producer = await self._client(AIOKafkaProducer, **_PRODUCER)
        try:
            async with self._shared(producer):
                return await append_in_batches(producer, records, placed)
        except kafka.MessageSizeTooLargeError as error:
            raise await self.too_large(records) from error
        except kafka.KafkaError as error:
            if isinstance(error, RIGHTS):
                raise not_allowed(error, self._access, "Write", topics) from error
            raise AppendFailed(", ".join(topics), f"{type(error).__name__} {error}") from error

    async def placed(self, records: Sequence[Outgoing], anew: bool = False) -> Placed:
        """In which partition each of them goes. Raises `TooLarge` for one that its topic does not take.

        `anew`: as the topics stand now. What the broker refuses takes a number of the producer that sent it.
        """
        topics = {record.topic for record in records}
        if anew:
            self._specs = {topic: spec for topic, spec in self._specs.items() if topic not in topics}
        specs = {topic: await self._spec(topic) for topic in topics}
        limits = {topic: limit_of(spec) for topic, spec in specs.items()}
        for record in records:
            if size_of(record) > limits[record.topic]:
                raise TooLarge(record.topic, size_of(record), limits[record.topic])
        return place(records, {topic: spec.partitions for topic, spec in specs.items()})

    async def too_large(self, records: Sequence[Outgoing]) -> TooLarge:
        """Of records that the broker has not taken: its limit is another than when it was asked."""
        largest = max(records, key=size_of)
        self._specs.pop(largest.topic, None)
        return TooLarge(largest.topic, size_of(largest), limit_of(await self._spec(largest.topic)))

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, beat: Callable[[], None] = unheard
    ) -> AsyncIterator[Sequence[Record]]:
        first, end = (await self.starts(topic))[partition], (await self.ends(topic))[partition]
        last = end if stop is None else stop
        if start < first or last > end:
            raise MissingOffsets(topic, partition, start, stop, first, end)
        if start >= last:
            return
        tp = TopicPartition(topic, partition)
        async with self._reader(last - start) as reader:
            reader.assign([tp])
            reader.seek(tp, start)
            while (position := await reader.position(tp)) < last:
                try:
                    polled = await reader.getmany(tp, timeout_ms=READ_WAIT_MS, max_records=last - position)
                except kafka.OffsetOutOfRangeError as error:
                    first = (await self.starts(topic))[partition]
                    raise MissingOffsets(topic, partition, position, stop, first, end) from error
                except RIGHTS as error:
                    raise not_allowed(error, self._access, "Read", [topic]) from error
                beat()
                if batch := to_records(tp, (found for found in polled.get(tp, ()) if found.offset < last)):
                    await self._learn(record.value for record in batch)
                    yield batch

    async def starts(self, topic: str) -> Mapping[int, int]:
        return await self._bounds(topic, AIOKafkaConsumer.beginning_offsets)

    async def ends(self, topic: str) -> Mapping[int, int]:
        return await self._bounds(topic, AIOKafkaConsumer.end_offsets)

    async def offsets_at(self, topic: str, timestamp: int) -> Mapping[int, int]:
        ends = await self.ends(topic)
        async with by_name(self._access, "Describe", [topic]):
            query = await self._client(AIOKafkaConsumer, **_READER)
            found = await query.offsets_for_times({TopicPartition(topic, partition): timestamp for partition in ends})
        return {tp.partition: at.offset if at else ends[tp.partition] for tp, at in found.items()}

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        partitions = await self._partitions(topic)
        async with (
            self._opened(AIOKafkaConsumer, group_id=group, enable_auto_commit=False) as member,
            by_name(self._access, "Read", [topic]),
        ):
            offsets = {tp.partition: await member.committed(tp) for tp in partitions}
        return {partition: offset for partition, offset in offsets.items() if offset is not None}

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[KafkaSubscription]:
        for topic in topics:
            await self._partitions(topic)
        consumer = self._made(AIOKafkaConsumer, group_id=group, **_READER, **self._group_options)
        assignments = Assignments(consumer)
        consumer.subscribe(topics, listener=assignments)
        async with self._begun(consumer):
            by_batches(consumer)
            yield KafkaSubscription(self, group, consumer, assignments, self._learn, self._access)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[KafkaAlone]:
        async with self._opened(AIOKafkaProducer, transactional_id=name, **_PRODUCER) as producer:
            yield KafkaAlone(self, name, producer, self._access)

    @asynccontextmanager
    async def _reader(self, records: int) -> AsyncIterator[AIOKafkaConsumer]:
        """For a short range small fetches: what is fetched beyond it is thrown away."""
        fetch = {"max_partition_fetch_bytes": min(READ_BYTES, (64 + records) << 10)}
        async with self._opened(AIOKafkaConsumer, **{**_READER, **fetch}) as reader:
            by_batches(reader, at_once=READ_BYTES)
            yield reader

    async def _bounds(self, topic: str, ask: Callable[..., Awaitable[Mapping[Any, int]]]) -> Mapping[int, int]:
        partitions = await self._partitions(topic)
        async with by_name(self._access, "Describe", [topic]):
            query = await self._client(AIOKafkaConsumer, **_READER)
            found = await self._unless_deleted(topic, ask(query, partitions))
        return {tp.partition: offset for tp, offset in found.items()}

    async def _unless_deleted(self, topic: str, asked: Awaitable[Mapping[Any, int]]) -> Mapping[Any, int]:
        """aiokafka asks for a topic that is gone until its time is up, as if no broker answered."""
        asking = asyncio.ensure_future(asked)
        try:
            while not (await asyncio.wait({asking}, timeout=DELETED_SECONDS))[0]:
                if await self._is_deleted(topic):
                    self._specs.pop(topic, None)
                    raise UnknownTopic(topic, self._access.servers)
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _is_deleted(self, topic: str) -> bool:
        """A broker that is away says nothing of it."""
        try:
            async with asyncio.timeout(DELETED_SECONDS):
                return topic not in await self.describe([topic])
        except (TimeoutError, Unreachable, kafka.KafkaError):
            return False

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in range((await self._spec(topic)).partitions)]

    async def _spec(self, topic: str) -> TopicSpec:
        """Asked once: neither partitions nor limits change under a running log."""
        if topic not in self._specs:
            found = await self.describe([topic])
            if topic not in found:
                raise UnknownTopic(topic, self._access.servers)
            self._specs[topic] = found[topic]
        return self._specs[topic]

    async def _visible(self, topic: str) -> None:
        """A broker may answer questions before it has heard of the topic that the controller has just made."""
        for pause in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0):
            try:
                await self._spec(topic)
            except UnknownTopic:
                await asyncio.sleep(pause)
            else:
                return
        raise Unreachable(self._access.servers, f"topic {topic} was created and is not there")

    def _made(self, kind: type[Client], **options: Any) -> Client:
        return self._access.client(kind, client_id=self._client_id, **options)

    async def _client(self, kind: type[Client], **options: Any) -> Client:
        async with self._opening:
            if kind not in self._clients:
                client = self._made(kind, **options)
                await start_client(client)
                self._clients[kind] = client
            found: Client = self._clients[kind]
            return found

    async def _administered(self, ask: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
        """Once more on a new connection: brokers end those that have stood for long, and this client alone minds."""
        admin = await self._client(AIOKafkaAdminClient)
        try:
            return await ask(admin)
        except kafka.KafkaConnectionError:
            return await ask(admin)

    @asynccontextmanager
    async def _shared(self, producer: AIOKafkaProducer) -> AsyncIterator[None]:
        """After an error an idempotent producer may refuse everything (OutOfOrderSequenceNumber): the next append
        begins a new one. It is closed by the last who appends through it: what one did ends nobody else's.
        """
        self._appending[producer] += 1
        try:
            yield
        except kafka.KafkaTimeoutError:  # no room came free in time: nothing was sent
            raise
        except kafka.KafkaError:
            if self._clients.get(AIOKafkaProducer) is producer:
                del self._clients[AIOKafkaProducer]
            raise
        finally:
            self._appending[producer] -= 1
            if not self._appending[producer]:
                del self._appending[producer]
                if self._clients.get(AIOKafkaProducer) is not producer:
                    await close_client(producer)

    def _opened(self, kind: type[Client], **options: Any) -> AbstractAsyncContextManager[Client]:
        return self._begun(self._made(kind, **options))

    @asynccontextmanager
    async def _begun(self, client: Client) -> AsyncIterator[Client]:
        async with by_name(self._access, "Describe"):
            await start_client(client)
        try:
            yield client
        finally:
            await close_client(client)


_READER: dict[str, Any] = {
    "enable_auto_commit": False,
    # Never jump over what retention took: say it.
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "max_partition_fetch_bytes": READ_BYTES,
    "fetch_max_bytes": 4 * READ_BYTES,
}
_PRODUCER: dict[str, Any] = {
    "enable_idempotence": True,
    "acks": "all",
    "max_batch_size": PRODUCED_BATCH_BYTES,
    # The topic's own limit is checked before: this one only has to be above it.
    "max_request_size": 100 << 20,
    "request_timeout_ms": 30_000,
}
