"""A member of a Kafka consumer group, as a `Subscription`."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from streams.errors import Fenced, MissingOffsets
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.refused import RIGHTS, by_name, not_allowed
from streams.log.port import EventLog, Learn, Record
from streams.log.port import TopicPartition as Partition

_FENCED = (
    kafka.CommitFailedError,
    kafka.IllegalStateError,
    kafka.IllegalGenerationError,
    kafka.UnknownMemberIdError,
    kafka.RebalanceInProgressError,
)


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Follows the generation of the group: who slept while others were given his partitions finds it two higher."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.given = 0

    def on_partitions_revoked(self, revoked: object) -> None:
        pass

    def on_partitions_assigned(self, assigned: object) -> None:
        self.given = max(self.given + 1, self._consumer._coordinator.generation)


class KafkaSubscription:
    def __init__(
        self,
        owner: EventLog,
        group: str,
        consumer: AIOKafkaConsumer,
        assignments: Assignments,
        learn: Learn,
        access: KafkaAccess,
    ) -> None:
        self._log = owner
        self._group = group
        self._consumer = consumer
        self._assignments = assignments
        self._learn = learn
        self._access = access

    async def poll(self, timeout: float = 1.0, limit: int | None = None) -> Mapping[Partition, Sequence[Record]]:
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            try:
                # While the group rebalances, getmany waits for the assignment whatever its own timeout says.
                async with asyncio.timeout(left + 0.1):
                    fetched = await self._consumer.getmany(timeout_ms=int(left * 1000), max_records=limit)
            except TimeoutError:
                return {}
            except kafka.NoOffsetForPartitionError as error:
                # Given to another member meanwhile: then there is nothing to seek.
                with suppress(kafka.IllegalStateError):
                    await self._consumer.seek_to_beginning(error.args[0])
                continue
            except kafka.OffsetOutOfRangeError as error:
                raise await self._missing(error.args[0]) from error
            except RIGHTS as error:
                raise not_allowed(error, self._access, "Read", self._topics()) from error
            await self._learn(record.value for records in fetched.values() for record in records)
            return {(tp.topic, tp.partition): to_records(tp, records) for tp, records in fetched.items()}

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        try:
            if offsets:
                await self._consumer.commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})
        except _FENCED as error:
            raise Fenced(self._group, sorted(offsets)) from error
        except RIGHTS as error:
            raise not_allowed(error, self._access, "Read", self._topics()) from error

    async def committed(self) -> Mapping[Partition, int]:
        async with by_name(self._access, "Read", self._topics()):
            found = {tp: await self._consumer.committed(tp) for tp in self._consumer.assignment()}
        never = {tp.topic for tp, offset in found.items() if offset is None}
        starts = {topic: await self._log.starts(topic) for topic in never}
        return {
            (tp.topic, tp.partition): starts[tp.topic][tp.partition] if offset is None else offset
            for tp, offset in found.items()
        }

    async def seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(*partition), offset)
        except kafka.IllegalStateError as error:
            raise Fenced(self._group, [partition]) from error

    def assignment(self) -> frozenset[Partition]:
        return frozenset((tp.topic, tp.partition) for tp in self._consumer.assignment())

    def generation(self) -> int:
        return self._assignments.given

    def _topics(self) -> Collection[str]:
        topics: Collection[str] = self._consumer.subscription()
        return topics

    async def _missing(self, wanted: Mapping[TopicPartition, int]) -> MissingOffsets:
        (tp, offset), *_ = wanted.items()
        first, end = (await self._log.starts(tp.topic)), (await self._log.ends(tp.topic))
        return MissingOffsets(tp.topic, tp.partition, offset, None, first[tp.partition], end[tp.partition])


def to_records(tp: TopicPartition, found: Iterable[Any]) -> Sequence[Record]:
    """From the parser's own records: see streams.log.kafka.fetched."""
    topic, partition = tp
    return [Record(topic, partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in found]
