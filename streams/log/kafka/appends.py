"""Appending whole record batches: one future a batch, not one a record, is what makes it fast."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from streams.log.partitioner import partition_of
from streams.log.port import Outgoing, Position, TopicPartition

# Fewer records of one partition than this go through the producer's own accumulator, which joins concurrent callers.
FEW = 16

Outcome = TypeVar("Outcome")
Placed = Mapping[TopicPartition, Sequence[int]]


def place(records: Sequence[Outgoing], counts: Mapping[str, int]) -> Placed:
    """Partition -> indexes of its records, in order. Records without a key stay together: fewer, fuller batches."""
    placed: dict[TopicPartition, list[int]] = defaultdict(list)
    keyless = {topic: random.randrange(count) for topic, count in counts.items()}  # noqa: S311
    for index, record in enumerate(records):
        partition = record.partition
        if partition is None:
            key = record.key
            partition = keyless[record.topic] if key is None else partition_of(key, counts[record.topic])
        placed[record.topic, partition].append(index)
    return placed


async def append_in_batches(
    producer: AIOKafkaProducer, records: Sequence[Outgoing], placed: Placed
) -> Sequence[Position]:
    positions: list[Position | None] = [None] * len(records)
    parts = [
        (_send_few if _sendable(records, indexes) else _send_batches)(producer, tp, records, indexes, positions)
        for tp, indexes in placed.items()
    ]
    await _all(parts)
    return [position for position in positions if position is not None]


def _sendable(records: Sequence[Outgoing], indexes: Sequence[int]) -> bool:
    """aiokafka's `send` takes no record with neither key nor value; its batches do."""
    return len(indexes) < FEW and all(
        records[index].key is not None or records[index].value is not None for index in indexes
    )


async def _send_few(
    producer: AIOKafkaProducer,
    tp: TopicPartition,
    records: Sequence[Outgoing],
    indexes: Sequence[int],
    positions: list[Position | None],
) -> None:
    topic, partition = tp
    sent = []
    for index in indexes:
        _, key, value, headers, _, timestamp = records[index]
        sent.append(await producer.send(topic, value, key, partition, timestamp, list(headers)))
    for index, metadata in zip(indexes, await _all(sent), strict=True):
        positions[index] = Position(topic, partition, metadata.offset)


async def _send_batches(
    producer: AIOKafkaProducer,
    tp: TopicPartition,
    records: Sequence[Outgoing],
    indexes: Sequence[int],
    positions: list[Position | None],
) -> None:
    topic, partition = tp
    starts, sent = [0], []
    batch = producer.create_batch()
    for n, index in enumerate(indexes):
        _, key, value, headers, _, timestamp = records[index]
        if batch.append(timestamp=timestamp, key=key, value=value, headers=list(headers)) is None:
            sent.append(await _submit(producer, batch, tp))
            starts.append(n)
            batch = producer.create_batch()
            batch.append(timestamp=timestamp, key=key, value=value, headers=list(headers))
    sent.append(await _submit(producer, batch, tp))
    for start, stop, metadata in zip(starts, [*starts[1:], len(indexes)], await _all(sent), strict=True):
        for n in range(start, stop):
            positions[indexes[n]] = Position(topic, partition, metadata.offset + n - start)


async def _submit(producer: AIOKafkaProducer, batch: BatchBuilder, tp: TopicPartition) -> Awaitable[RecordMetadata]:
    batch.close()
    acknowledged: Awaitable[RecordMetadata] = await producer.send_batch(batch, tp[0], partition=tp[1])
    return acknowledged


async def _all(sent: Sequence[Awaitable[Outcome]]) -> Sequence[Outcome]:
    """Waits for every one, also when the first has failed: nothing of ours is in flight afterwards."""
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
