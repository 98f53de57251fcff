"""Follows topics from the log itself, without a group: catches up on request, and holds what it folded in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from streams.log import EventLog, Record


class Tail:
    """`catch_up` hands every record up to the topic's present end to `take`, once, in order within a partition."""

    def __init__(self, log: EventLog, topic: str, take: Callable[[Record], None]) -> None:
        self._log = log
        self._topic = topic
        self._take = take
        self.positions: dict[int, int] = {}
        self._reading = asyncio.Lock()

    async def catch_up(self, starts: Mapping[int, int] | None = None) -> None:
        """Partitions not followed so far begin at `starts`; None: every partition, from its first record."""
        async with self._reading:
            await self._catch_up(starts)

    def known(self, partition: int, offset: int) -> bool:
        """Whoever wrote a record need not read it. False: others stand before it, and are read with it."""
        if self.positions.get(partition) != offset:
            return False
        self.positions[partition] = offset + 1
        return True

    async def _catch_up(self, starts: Mapping[int, int] | None) -> None:
        first = await self._log.starts(self._topic) if starts is None and not self.positions else starts or {}
        for partition, start in first.items():
            self.positions.setdefault(partition, start)
        ends = await self._log.ends(self._topic)
        for partition, position in list(self.positions.items()):
            if position >= ends[partition]:
                continue
            async for batch in self._log.read(self._topic, partition, position, ends[partition]):
                for record in batch:
                    self._take(record)
            self.positions[partition] = ends[partition]
