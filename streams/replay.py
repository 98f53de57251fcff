"""Replay for training: exact offset ranges in, dataset rows and their manifest out; a missing offset is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from processors.dataset import Manifest, Tally, in_order, select
from schemas.codec import decode
from schemas.envelope import Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.log import EventLog, Record

DATA_TOPIC = "company-data"

OnRecords = Callable[[int, int], None]
"""(offsets done, offsets in all)."""


def nobody(_done: int, _of: int) -> None:
    """Progress for nobody."""


async def everything_up_to_now(log: EventLog, names: TopicNames) -> tuple[OffsetRange, ...]:
    """All that company-data holds at this moment, as exact ranges under our own topic name."""
    wire = names.wire(DATA_TOPIC)
    starts, ends = await log.starts(wire), await log.ends(wire)
    parts = (OffsetRange(topic=DATA_TOPIC, partition=p, start=starts[p], stop=ends[p]) for p in ends)
    return in_order(list(parts))


async def build(
    log: EventLog,
    names: TopicNames,
    company: str,
    ranges: Sequence[OffsetRange],
    rows: Path,
    on_records: OnRecords = nobody,
) -> Manifest:
    """Writes the rows to a file and returns their manifest. Holds one batch in memory, however long the log is."""
    tally = Tally()
    done, total = 0, sum(part.stop - part.start for part in ranges)
    with rows.open("wb") as out:
        for part in in_order(ranges):
            async for batch in log.read(names.wire(part.topic), part.partition, part.start, part.stop):
                out.writelines(_rows(batch, part.topic, company, tally))
                on_records(done + batch[-1].offset + 1 - part.start, total)
            done += part.stop - part.start
            on_records(done, total)
    return tally.manifest(company, ranges)


def _rows(batch: Sequence[Record], topic: str, company: str, tally: Tally) -> list[bytes]:
    lines = []
    for record in batch:
        origin = Origin(topic, record.partition, record.offset)
        event = decode(record.value, origin, record.timestamp, record.headers)
        tally.records += 1
        if isinstance(event, Rejected):
            tally.rejected += 1
        else:
            lines += [tally.add(example) for example in select(event, origin, company)]
    return lines
