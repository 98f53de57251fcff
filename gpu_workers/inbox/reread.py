"""The records of what waits in an inbox: those that came lately from memory, all others from the log again."""

import asyncio
import logging
from collections import Counter, defaultdict

from gpu_workers.inbox.inbox import Inbox, Item
from streams.errors import MissingOffsets
from streams.log.port import EventLog, Record, TopicPartition

AHEAD = 16
"""Offsets that one reading takes in: neighbours are often of one company, and next in its line."""
MOST_BYTES = 32 << 20
COMPANY_BYTES = MOST_BYTES // 4
OVERHEAD = 1024
"""Of a record in memory, roughly."""

log = logging.getLogger(__name__)


class Reread:
    def __init__(self, events: EventLog, inbox: Inbox, ahead: int = AHEAD) -> None:
        self._log, self._inbox, self._ahead = events, inbox, ahead
        self._kept: dict[Item, Record] = {}
        self._bytes: Counter[str] = Counter()
        """By company: nobody's words push out another's."""
        self._turns: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)

    def keep(self, item: Item, record: Record) -> None:
        """Where there is no room it is read when its turn comes: those before it come first."""
        size = _size(record)
        full = self._bytes[item.company] + size > COMPANY_BYTES or self._bytes.total() + size > MOST_BYTES
        if not full and item not in self._kept:
            self._kept[item] = record
            self._bytes[item.company] += size

    async def of(self, item: Item) -> Record | None:
        """Once for each item. None: retention took it from the log."""
        if record := self._taken(item):
            return record
        async with self._turns[item.place]:
            return self._taken(item) or await self._read(item)

    def clear(self) -> None:
        """After partitions were given out anew."""
        self._kept.clear()
        self._bytes.clear()

    def _taken(self, item: Item) -> Record | None:
        record = self._kept.pop(item, None)
        if record is not None:
            self._bytes -= Counter({item.company: _size(record)})  # none is left of who has nothing here
        return record

    async def _read(self, item: Item) -> Record | None:
        found, known = None, self._inbox.polled_to(item.place)
        stop = max(item.offset + 1, min(item.offset + self._ahead, known))
        try:
            async for batch in self._log.read(*item.place, item.offset, stop):
                for record in batch:
                    if record.offset == item.offset:
                        found = record
                    elif waits := self._inbox.waiting(item.place, record.offset):
                        self.keep(waits, record)
        except MissingOffsets as error:
            log.error("request %s of %s is dropped, its words are gone: %s", item.id, item.company, error)
        return found


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"") + OVERHEAD
