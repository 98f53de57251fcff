"""Appending whole record batches: one future a batch, not one a record, is what makes it fast."""

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
    parts = [(tp, [records[index] for index in indexes]) for tp, indexes in placed.items()]
    sent = [(_send_few if _sendable(some) else _send_batches)(producer, tp, some) for tp, some in parts]
    for ((topic, partition), indexes), offsets in zip(placed.items(), await _all(sent), strict=True):
        for index, offset in zip(indexes, offsets, strict=True):
            positions[index] = Position(topic, partition, offset)
    return [position for position in positions if position is not None]


def _sendable(records: Sequence[Outgoing]) -> bool:
    """aiokafka's `send` takes no record with neither key nor value; its batches do."""
    return len(records) < FEW and all(record.key is not None or record.value is not None for record in records)


async def _send_few(producer: AIOKafkaProducer, tp: TopicPartition, records: Sequence[Outgoing]) -> Sequence[int]:
    """Where each stands."""
    sent = []
    for _, key, value, headers, _, timestamp in records:
        sent.append(await producer.send(tp[0], value, key, tp[1], timestamp, list(headers)))
    return [metadata.offset for metadata in await _all(sent)]


async def _send_batches(producer: AIOKafkaProducer, tp: TopicPartition, records: Sequence[Outgoing]) -> Sequence[int]:
    """Where each stands."""
    starts, sent = [0], []
    batch = producer.create_batch()
    for n, (_, key, value, headers, _, timestamp) in enumerate(records):
        if batch.append(timestamp=timestamp, key=key, value=value, headers=list(headers)) is None:
            sent.append(await _submit(producer, batch, tp))
            starts.append(n)
            batch = producer.create_batch()
            batch.append(timestamp=timestamp, key=key, value=value, headers=list(headers))
    sent.append(await _submit(producer, batch, tp))
    stretches = zip(starts, [*starts[1:], len(records)], await _all(sent), strict=True)
    return [metadata.offset + n for start, stop, metadata in stretches for n in range(stop - start)]


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
