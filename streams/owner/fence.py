"""One writer per changelog partition, enforced by the broker: the newest owner's claim shuts out every older one.

A transactional id per changelog partition is used for nothing but its epoch, whichever group writes there.
`InitProducerId` gives each owner a higher epoch under the same producer id; the batches themselves are plain idempotent
ones, with no transaction around them. The claim record makes the partition's leader see the new epoch, and from then on
it refuses batches of an older one.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced

from streams.errors import ChangelogFailed, OwnershipLost
from streams.fold.pieces import BATCH_BYTES
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.client import start_client
from streams.log.kafka.refused import RIGHTS, by_name, not_allowed
from streams.log.port import TopicPartition
from streams.owner.epochs import Epochs, seconds_passed
from streams.state.changelog import Rows, claim_record

MAX_BATCH = BATCH_BYTES + 40_000
_WRITER = {"enable_idempotence": True, "max_batch_size": MAX_BATCH, "max_request_size": MAX_BATCH, "acks": "all"}


class Writer(NamedTuple):
    producer: AIOKafkaProducer
    epochs: Epochs


class FencedChangelogs:
    """All changelog partitions with one number have one producer: they are assigned together."""

    def __init__(self, owner: str, access: KafkaAccess, clock: Callable[[], float] = seconds_passed) -> None:
        self._owner, self._access, self._clock = owner, access, clock
        self._writers: dict[int, Writer] = {}

    async def claim(self, topics: Mapping[int, Sequence[str]]) -> Mapping[TopicPartition, int]:
        """From its return on, no older owner can append to these topics in these partitions.

        Whatever one of them has written lies below the offsets that it returns: those of our claims.
        """
        claims = await asyncio.gather(*(self._claim(partition, names) for partition, names in topics.items()))
        return {place: offset for claim in claims for place, offset in claim.items()}

    async def _claim(self, partition: int, topics: Sequence[str]) -> Mapping[TopicPartition, int]:
        await self._stop(partition)
        producer = self._access.client(AIOKafkaProducer, **_WRITER)
        async with by_name(self._access, "Write", topics):
            await start_client(producer)
            writer = self._writers[partition] = Writer(producer, Epochs.of(producer, self._clock))
            await asyncio.gather(*(writer.epochs.take(topic, partition) for topic in topics))
        claim: Rows = [claim_record(self._owner)]
        offsets = await asyncio.gather(*(self.append(topic, partition, claim) for topic in topics))
        for topic, offset in zip(topics, offsets, strict=True):
            if offset is None:
                raise ChangelogFailed(topic, partition, "the claim was known already, and where it stands was not said")
        return {(topic, partition): offset for topic, offset in zip(topics, offsets, strict=True) if offset is not None}

    async def append(self, topic: str, partition: int, rows: Rows) -> int | None:
        """Offset of the last row; None when the broker knew the batch already and could not say where it stands."""
        if (writer := self._writers.get(partition)) is None:
            raise OwnershipLost(topic, partition)  # handed back while it was being claimed
        producer, epochs = writer
        batch = producer.create_batch()
        for key, value in rows:
            if batch.append(timestamp=None, key=key, value=value) is None:
                raise AssertionError(
                    f"{len(rows)} rows do not fit {MAX_BATCH} bytes: see streams.fold.pieces.BATCH_BYTES"
                )
        try:
            await epochs.hold(topic, partition)
            sent = await (await producer.send_batch(batch, topic, partition=partition))
        except ProducerFenced as error:
            raise OwnershipLost(topic, partition) from error
        except RIGHTS as error:
            raise not_allowed(error, self._access, "Write", [topic]) from error
        except KafkaError as error:
            raise ChangelogFailed(topic, partition, error) from error
        return sent.offset + len(rows) - 1 if sent.offset >= 0 else None

    async def release(self, partitions: Sequence[int]) -> None:
        await asyncio.gather(*(self._stop(partition) for partition in partitions))

    async def stop(self) -> None:
        await self.release(list(self._writers))

    async def _stop(self, partition: int) -> None:
        writer = self._writers.pop(partition, None)
        if writer is not None:
            await writer.producer.stop()
