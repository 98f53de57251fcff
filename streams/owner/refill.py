"""Changelog partitions read into their stores in one straight loop, outside of Faust: a third of the time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.errors import ChangelogCut
from streams.fold.shard import Shard
from streams.log.kafka.client import close_client, start_client
from streams.log.kafka.fetched import by_batches

REFILL_FETCH_BYTES = 1 << 20
REFILL_WAIT_MS = 1000
Refill = Callable[[Mapping["Shard[Any]", int]], Awaitable[None]]
"""Brings each shard's store to an offset of its changelog that is known to be there."""


async def refill(shards: Mapping[Shard[Any], int], **options: Any) -> None:
    """A crash leaves a shorter prefix in each store: a write moves rows and position together."""
    behind = {TopicPartition(shard.changelog, shard.partition): shard for shard in shards}
    if not behind:
        return
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=REFILL_FETCH_BYTES, **options
    )
    await start_client(consumer)
    # Leaving waits for the threads: nobody closes a store that is just being finished.
    with ThreadPoolExecutor(len(behind)) as finishers:
        try:
            await _begin(consumer, behind)
            finished = []
            while behind:
                for tp, records in (await consumer.getmany(*behind, timeout_ms=REFILL_WAIT_MS)).items():
                    shard = behind[tp]
                    if _take(shard, records) >= shards[shard]:
                        del behind[tp]
                        finished.append(finishers.submit(shard.store.filled))
        finally:
            await close_client(consumer)
    for each in finished:
        each.result()


async def _begin(consumer: AIOKafkaConsumer, behind: Mapping[TopicPartition, Shard[Any]]) -> None:
    """Raises `ChangelogCut` where rows are gone that a store does not have."""
    by_batches(consumer)
    consumer.assign(list(behind))
    for tp, first in (await consumer.beginning_offsets(list(behind))).items():
        kept = behind[tp].store.position()
        needed = 0 if kept is None else kept + 1
        if needed < first:
            raise ChangelogCut(tp.topic, tp.partition, needed, first)
        consumer.seek(tp, needed)


def _take(shard: Shard[Any], records: Sequence[Any]) -> int:
    """Where the store stands afterwards."""
    last: int = records[-1].offset
    shard.restore(((record.key or b"", record.value) for record in records), last)
    return last
