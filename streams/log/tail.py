"""Follows topics from the log itself, without a group: catches up on request, and holds what it folded in memory."""

import asyncio
from collections.abc import Callable, Mapping

from streams.fairness.slices import Slices, unheard
from streams.log.port import EventLog, Record


class Tail:
    """`catch_up` hands every record up to the topic's present end to `take`, once, in order within a partition.

    However many they are, others have their turn meanwhile, and `beat` is called as it gets on. Whoever is cancelled
    goes on where he was.
    """

    def __init__(
        self, log: EventLog, topic: str, take: Callable[[Record], None], beat: Callable[[], None] = unheard
    ) -> None:
        self._log = log
        self._topic = topic
        self._take, self._beat = take, beat
        self.positions: dict[int, int] = {}
        self._reading = asyncio.Lock()

    async def catch_up(self, starts: Mapping[int, int] | None = None) -> None:
        """Partitions not followed so far begin at `starts`; None: every partition, from its first record."""
        async with self._reading:
            first = await self._log.starts(self._topic) if starts is None and not self.positions else starts or {}
            for partition, start in first.items():
                self.positions.setdefault(partition, start)
            ends, slices = await self._log.ends(self._topic), Slices(self._beat)
            for partition, position in list(self.positions.items()):
                if position >= ends[partition]:
                    continue
                async for batch in self._log.read(self._topic, partition, position, ends[partition]):
                    for record in batch:
                        self._take(record)
                        self.positions[partition] = record.offset + 1
                        if slices.over():
                            await slices.give_up()
                self.positions[partition] = ends[partition]

    def known(self, partition: int, offset: int) -> bool:
        """Whoever wrote a record need not read it. False: others stand before it, and are read with it."""
        if self.positions.get(partition) != offset:
            return False
        self.positions[partition] = offset + 1
        return True
