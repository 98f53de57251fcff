"""Changelog partitions read into their stores in one straight loop, outside of Faust: a third of the time."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.errors import ChangelogCut
from streams.fold.shard import Shard
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.client import close_client, start_client
from streams.log.kafka.fetched import by_batches
from streams.log.kafka.refused import RIGHTS, by_name, not_allowed

REFILL_FETCH_BYTES = 1 << 20
REFILL_WAIT_MS = 1000
_READER: Mapping[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "max_partition_fetch_bytes": REFILL_FETCH_BYTES,
}
Refill = Callable[[Mapping["Shard[Any]", int]], Awaitable[None]]
"""Brings each shard's store to an offset of its changelog that is known to be there."""


async def refill(shards: Mapping[Shard[Any], int], access: KafkaAccess) -> None:
    """A crash leaves a shorter prefix in each store: a write moves rows and position together."""
    behind = {TopicPartition(shard.changelog, shard.partition): shard for shard in shards}
    if not behind:
        return
    consumer = access.client(AIOKafkaConsumer, **_READER)
    async with by_name(access, "Describe"):
        await start_client(consumer)
    # Leaving waits for the threads: nobody closes a store that is just being finished.
    with ThreadPoolExecutor(len(behind)) as finishers:
        try:
            await _begin(consumer, behind)
            finished = []
            while behind:
                for tp, records in (await _fetched(consumer, behind, access)).items():
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
        needed = behind[tp].needs()
        if needed < first:
            raise ChangelogCut(tp.topic, tp.partition, needed, first)
        consumer.seek(tp, needed)


async def _fetched(
    consumer: AIOKafkaConsumer, behind: Collection[TopicPartition], access: KafkaAccess
) -> Mapping[TopicPartition, Sequence[Any]]:
    try:
        found: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(*behind, timeout_ms=REFILL_WAIT_MS)
    except RIGHTS as error:
        raise not_allowed(error, access, "Read", {tp.topic for tp in behind}) from error
    return found


def _take(shard: Shard[Any], records: Sequence[Any]) -> int:
    """Where the store stands afterwards."""
    last: int = records[-1].offset
    shard.restore(((record.key or b"", record.value) for record in records), last)
    return last
