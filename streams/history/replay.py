"""Replay for training: exact offset ranges in, dataset rows and their manifest out; a missing offset is named."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import BinaryIO

from processors.dataset.turns import DatasetCounts, Manifest, in_order, select
from schemas.codec.codec import decode
from schemas.envelope import Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.errors import TooMuchData
from streams.fairness.slices import Slices, unheard
from streams.log.port import EventLog, Record

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
    most_bytes: float = inf,
    beat: Callable[[], None] = unheard,
) -> Manifest:
    """Writes the rows to a file and returns their manifest. Holds one batch in memory, however long the log is, and
    lets others have their turn within it.

    `TooMuchData` where the rows grow beyond `most_bytes`.
    """
    tally, slices = DatasetCounts(), Slices(beat)
    done, total = 0, sum(part.stop - part.start for part in ranges)
    with rows.open("wb") as out:
        for part in in_order(ranges):
            async for batch in log.read(names.wire(part.topic), part.partition, part.start, part.stop):
                await _write(out, batch, part.topic, company, tally, most_bytes, slices)
                on_records(done + batch[-1].offset + 1 - part.start, total)
            done += part.stop - part.start
            on_records(done, total)
    return tally.manifest(company, ranges)


async def _write(
    out: BinaryIO,
    batch: Sequence[Record],
    topic: str,
    company: str,
    tally: DatasetCounts,
    most_bytes: float,
    slices: Slices,
) -> None:
    for record in batch:
        for line in _rows(record, topic, company, tally):
            if out.write(line) and out.tell() > most_bytes:
                raise TooMuchData(company, Origin(topic, record.partition, record.offset), most_bytes)
            if slices.over():
                await slices.give_up()
        if slices.over():
            await slices.give_up()


def _rows(record: Record, topic: str, company: str, tally: DatasetCounts) -> Iterator[bytes]:
    origin = Origin(topic, record.partition, record.offset)
    event = decode(record.value, origin, record.timestamp, record.headers)
    tally.records += 1
    if isinstance(event, Rejected):
        tally.rejected += 1
        return
    for example in select(event, origin, company):
        yield tally.add(example)
