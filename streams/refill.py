"""Changelog partitions read into their stores in one straight loop, outside of Faust: a third of the time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from streams.kafka_close import close_client
from streams.shard import Shard

FETCH_BYTES = 1 << 20
WAIT_MS = 1000
# upstream function -> what of its text must still be there
RELIES_ON: Mapping[str, Sequence[str]] = {
    "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": ("self._records[tp] = FetchResult(",),
    "aiokafka.consumer.fetcher:FetchResult.getall": ("for msg in self._partition_records:",),
    "aiokafka.consumer.fetcher:PartitionRecords.__init__": ("self._records_iterator = self._unpack_records()",),
    "aiokafka.consumer.fetcher:PartitionRecords.__next__": ("return next(self._records_iterator)",),
}

Refill = Callable[[Mapping["Shard[Any]", int]], Awaitable[None]]
"""Brings each shard's store to an offset of its changelog that is known to be there."""


async def refill(shards: Mapping[Shard[Any], int], **options: Any) -> None:
    """A crash leaves a shorter prefix in each store: a write moves rows and position together."""
    behind = {TopicPartition(shard.changelog, shard.partition): shard for shard in shards}
    if not behind:
        return
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES, **options
    )
    # Leaving waits for the threads: nobody closes a store that is just being finished.
    with ThreadPoolExecutor(len(behind)) as finishers:
        try:
            await consumer.start()
            _begin(consumer, behind)
            finished = []
            while behind:
                for tp, batches in (await consumer.getmany(*behind, timeout_ms=WAIT_MS)).items():
                    shard = behind[tp]
                    if _take(shard, batches) >= shards[shard]:
                        del behind[tp]
                        finished.append(finishers.submit(shard.store.filled))
        finally:
            await close_client(consumer)
    for each in finished:
        each.result()


def _begin(consumer: AIOKafkaConsumer, behind: Mapping[TopicPartition, Shard[Any]]) -> None:
    consumer._fetcher._records = _Whole()
    consumer.assign(list(behind))
    for tp, shard in behind.items():
        kept = shard.store.position()
        consumer.seek(tp, 0 if kept is None else kept + 1)


def _take(shard: Shard[Any], batches: Sequence[Sequence[Any]]) -> int:
    """Where the store stands afterwards."""
    last: int = batches[-1][-1].offset
    shard.restore(((record.key or b"", record.value) for records in batches for record in records), last)
    return last


class _Whole(OrderedDict[Any, Any]):
    """What aiokafka has fetched and not handed out: by record batches, not wrapped record by record."""

    def __setitem__(self, tp: Any, fetched: Any) -> None:
        if isinstance(fetched, FetchResult):
            fetched._partition_records._records_iterator = _batches(fetched._partition_records, tp)
        super().__setitem__(tp, fetched)


def _batches(fetched: Any, tp: Any) -> Iterator[list[Any]]:
    """A changelog's writers open no transactions, so there is none to leave out."""
    while fetched._records.has_next():
        batch = fetched._records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {tp}")
        start, fetched.next_fetch_offset = fetched.next_fetch_offset, batch.next_offset
        records = [] if batch.is_control_batch else list(batch)
        if batch.base_offset < start:
            records = [record for record in records if record.offset >= start]
        if records:
            yield records


def refilling(**options: Any) -> Refill:
    return partial(refill, **options)
