"""One appender of its name: a transactional id, by which the broker ends what an earlier one has begun."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka

from streams.errors import AppendFailed, ShutOut, TooLarge
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.appends import Placed, append_in_batches
from streams.log.kafka.refused import RIGHTS, not_allowed
from streams.log.port import EventLog, Outgoing, Position, Reached

LOOK_SECONDS = 0.02
READ_SECONDS = 90.0
"""Longer than a broker of ours leaves another's transaction open, behind which nobody reads."""


class Placing(EventLog, Protocol):
    async def placed(self, records: Sequence[Outgoing], anew: bool = False) -> Placed: ...

    async def too_large(self, records: Sequence[Outgoing]) -> TooLarge: ...


class KafkaAlone:
    """Before its producer stood, the broker has finished or aborted whatever an earlier one of its name had open."""

    def __init__(self, log: Placing, name: str, producer: AIOKafkaProducer, access: KafkaAccess) -> None:
        self._log, self._name, self._producer, self._access = log, name, producer, access

    async def append(self, records: Sequence[Outgoing], reached: Reached | None = None) -> Sequence[Position]:
        if not records and reached is None:
            return []
        placed = await self._log.placed(records, anew=True)
        try:
            async with self._producer.transaction():
                positions = await append_in_batches(self._producer, records, placed)
                if reached is not None:
                    offsets = {TopicPartition(*place): offset for place, offset in reached.offsets.items()}
                    await self._producer.send_offsets_to_transaction(offsets, reached.group)
        except (kafka.ProducerFenced, kafka.InvalidProducerEpoch) as error:
            raise ShutOut(self._name) from error
        except kafka.MessageSizeTooLargeError as error:
            raise await self._log.too_large(records) from error
        except RIGHTS as error:
            raise not_allowed(error, self._access, "Write", {topic for topic, _ in placed}) from error
        except kafka.KafkaError as error:
            raise AppendFailed(self._name, f"{type(error).__name__} {error}") from error
        await self._until_read(positions)
        return positions

    async def _until_read(self, positions: Sequence[Position]) -> None:
        """The broker says yes before the partitions have heard of it."""
        ends = {(each.topic, each.partition): each.offset + 1 for each in positions}
        for (topic, partition), end in ends.items():
            try:
                async with asyncio.timeout(READ_SECONDS):
                    while (await self._log.ends(topic))[partition] < end:  # noqa: ASYNC110 - a broker tells nobody
                        await asyncio.sleep(LOOK_SECONDS)
            except TimeoutError as error:
                unread = f"they are committed, and nobody reads {topic}/{partition} up to {end}: an open transaction?"
                raise AppendFailed(self._name, unread) from error
