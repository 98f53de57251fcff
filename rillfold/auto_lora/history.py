"""Where made conversations are events: in Kafka, or in a log of this process where none runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from processors.dataset.selection import Selection
from processors.dataset.turns import Manifest
from processors.synthetic.making import Made
from rillfold.auto_lora.made import event_of
from rillfold.event_log import event_log, now
from rillfold.settings import Settings
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.history import replay
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, TopicSpec


class History:
    """What one loop tells the log, and what is learned of it: that alone, whatever else the log holds."""

    def __init__(self, log: EventLog, names: TopicNames, company: str, begin: Sequence[OffsetRange]) -> None:
        self._log, self._names, self._company = log, names, company
        self._begin = {part.partition: part.stop for part in begin if part.topic == replay.DATA_TOPIC}

    async def tell(self, made: Sequence[Made]) -> None:
        await self._log.append([to_outgoing(event_of(each, self._company, now()), self._names) for each in made])

    async def rows(self, path: Path, select: Selection) -> Manifest:
        """As a training worker builds them: exact ranges, by rule 3."""
        there = await replay.everything_up_to_now(self._log, self._names)
        ranges = [
            OffsetRange(topic=part.topic, partition=part.partition, start=self._from(part), stop=part.stop)
            for part in there
            if part.topic == replay.DATA_TOPIC
        ]
        return await replay.build(self._log, self._names, self._company, ranges, path, select=select, tools_from=())

    def _from(self, part: OffsetRange) -> int:
        return max(part.start, self._begin.get(part.partition, part.start))


@asynccontextmanager
async def in_memory(company: str) -> AsyncIterator[History]:
    """Nothing needs to run; it ends with the process."""
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec(names.wire(replay.DATA_TOPIC), 1)])
    yield History(log, names, company, ())


@asynccontextmanager
async def in_kafka(settings: Settings, company: str) -> AsyncIterator[History]:
    """The events stay, and can be replayed, narrowed to and left out."""
    names = settings.topic_names()
    async with event_log(settings) as log:
        yield History(log, names, company, await replay.everything_up_to_now(log, names))
