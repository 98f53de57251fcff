"""What aiokafka has fetched, handed on by whole record batches: wrapping record by record costs more than parsing.

What of aiokafka's insides is relied on stands in `tests/support/relied_on.py`.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException

from streams.log.kafka.opened import keep_bytes, records_of

AT_ONCE = 32 << 20


def by_batches(consumer: Any, limit: int | None = None, at_once: int = AT_ONCE) -> None:
    """From now on this started consumer returns the parser's own records, at most so many of each partition at once.

    A limit that is given with a fetch holds for all partitions together, and instead of this one. `at_once`: bytes in
    memory, about, after which no more batches are opened for one call. Packed they may be small.
    """
    keep_bytes()
    fetcher = consumer._fetcher
    if not isinstance(fetcher._records, Waiting):
        fetcher._records = Waiting(fetcher._records)
    fetcher._records.limit, fetcher._records.at_once = limit, at_once


class Waiting(OrderedDict[Any, Any]):
    """What is fetched and not handed out."""

    limit: int | None = None
    at_once = AT_ONCE
    weight = 0
    """Of what is open, of all partitions: what this call hands out, and what earlier ones have left."""

    def keys(self) -> Any:
        """Each call begins with them, and goes through all of them in one turn."""
        takers = (vars(fetched).get("getall") for fetched in self.values())
        self.weight = sum(take.left_weight for take in takers if take is not None)
        return super().keys()

    def full(self) -> bool:
        return self.weight >= self.at_once

    def __setitem__(self, tp: Any, fetched: Any) -> None:
        if isinstance(fetched, FetchResult) and fetched.has_more():
            fetched.getall = TakeAll(fetched, self)
        super().__setitem__(tp, fetched)


class TakeAll:
    """Does for one fetch of a partition what `FetchResult.getall` does."""

    def __init__(self, fetched: Any, waiting: Waiting) -> None:
        self._fetched, self._waiting = fetched, waiting
        self._batches: Iterator[tuple[list[Any], int]] = _batches(fetched._partition_records, fetched._topic_partition)
        # Its own generator is never begun, and would hold the fetch, which holds it.
        fetched._partition_records._records_iterator = None
        self._left: list[Any] = []
        self._each = 0
        """What a record of the last record batch weighs, about."""
        self._end: int = fetched._partition_records.next_fetch_offset
        """Of the last record batch: where to go on when nothing of it is left."""

    def __call__(self, max_records: int | None = None) -> list[Any]:
        fetched, limit = self._fetched, self._waiting.limit if max_records is None else max_records
        if not fetched.check_assignment(fetched._topic_partition) or not fetched.has_more():
            self._let_go()
            return []
        if self._waiting.full() and not self._left:
            return []  # its turn comes with the next call
        parsed, taken = fetched._partition_records, self._left
        while (limit is None or len(taken) < limit) and (not taken or not self._waiting.full()):
            batch, weight = next(self._batches, (None, 0))
            if batch is None:
                parsed.next_fetch_offset = self._end
                fetched._update_position()
                fetched._partition_records = None
                self._let_go()
                return taken
            taken += batch
            self._each = weight // max(1, len(batch))
            self._waiting.weight += weight
            self._end = parsed.next_fetch_offset
        if limit is not None:
            taken, self._left = taken[:limit], taken[limit:]
        else:
            self._left = []
        parsed.next_fetch_offset = self._left[0].offset if self._left else self._end
        fetched._update_position()
        if self._waiting.full():
            self._waiting.move_to_end(fetched._topic_partition)
        return taken

    @property
    def left_weight(self) -> int:
        return self._each * len(self._left)

    def _let_go(self) -> None:
        """The fetch and this hold each other: megabytes would wait for a look at cycles, which is rare here."""
        self._left, self._batches = [], iter(())
        vars(self._fetched).pop("getall", None)


def _batches(parsed: Any, tp: Any) -> Iterator[tuple[list[Any], int]]:
    """And what each weighs. Here nothing is kept of them: it would wait as long as what is fetched behind it."""
    start = parsed.next_fetch_offset
    while parsed._records.has_next():
        yield _next(parsed, tp, start)


def _next(parsed: Any, tp: Any, start: int) -> tuple[list[Any], int]:
    """Without control batches, and what was aborted where only the committed is to be read."""
    batch = parsed._records.next_batch()
    if not batch.validate_crc():
        raise CorruptRecordException(f"Invalid CRC - {tp}")
    wanted = not _aborted(parsed, batch) and not batch.is_control_batch
    records, weight = records_of(parsed._records, batch) if wanted else ([], 0)
    parsed.next_fetch_offset = batch.next_offset
    if batch.base_offset < start:
        records = [record for record in records if record.offset >= start]
    return records, weight


def _aborted(parsed: Any, batch: Any) -> bool:
    if parsed._isolation_level != READ_COMMITTED or batch.producer_id is None:
        return False
    parsed._consume_aborted_up_to(batch.base_offset)
    if batch.is_control_batch and parsed._contains_abort_marker(batch):
        parsed._aborted_producers.discard(batch.producer_id)
    return batch.is_transactional and batch.producer_id in parsed._aborted_producers
