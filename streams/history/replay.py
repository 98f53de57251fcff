"""Replay for training: exact offset ranges in, dataset rows and their manifest out; a missing offset is named."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import BinaryIO

from processors.dataset.noticed import Noticed
from processors.dataset.selection import Selection
from processors.dataset.taught import NO_RULES, Rule, chosen
from processors.dataset.turns import THIRD, DatasetCounts, Manifest, in_order
from processors.dataset.turns import select as select_turns
from processors.training.settings import RULE_VERSION
from schemas.codec.codec import decode
from schemas.envelope import Origin
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.errors import TooMuchData, UnknownTopic
from streams.fairness.slices import Slices, unheard
from streams.fold.old_ground import Letters, letters_of
from streams.history.learned import Learned, OnNoticed, Wanted
from streams.history.places import Places
from streams.log.port import EventLog, Record, TopicPartition

DATA_TOPIC, REPLIES_TOPIC = "company-data", "tool-result"
EVERYTHING = Selection()

OnRecords = Callable[[int, int], None]
"""(offsets done, offsets in all)."""


def nobody(_done: int, _of: int) -> None:
    """Progress for nobody."""


def unnoticed(_noticed: Noticed) -> None:
    """Told to nobody."""


async def everything_up_to_now(
    log: EventLog, names: TopicNames, rule: int = RULE_VERSION, beside: Sequence[str] = ()
) -> tuple[OffsetRange, ...]:
    """All that a rule learns from and the log holds at this moment, as exact ranges under our own topic names.

    `beside`: topics whose events an application's rules take.
    """
    parts = []
    for topic in await topics_there(log, names, rule, beside):
        wire = names.wire(topic)
        starts, ends = await log.starts(wire), await log.ends(wire)
        parts += [OffsetRange(topic=topic, partition=p, start=starts[p], stop=ends[p]) for p in ends]
    return in_order(parts)


async def topics_there(log: EventLog, names: TopicNames, rule: int, beside: Sequence[str] = ()) -> tuple[str, ...]:
    """company-data, and, where they are there and the rule listens to them, what tools replied and what is beside."""
    found = [DATA_TOPIC]
    for topic in (REPLIES_TOPIC, *beside) if rule >= THIRD else ():
        with suppress(UnknownTopic):
            await log.starts(names.wire(topic))
            found.append(topic)
    return tuple(dict.fromkeys(found))


async def partitions_of(
    log: EventLog, names: TopicNames, rule: int, beside: Sequence[str] = ()
) -> Mapping[str, Collection[int]]:
    return {topic: await log.starts(names.wire(topic)) for topic in await topics_there(log, names, rule, beside)}


async def build(
    log: EventLog,
    names: TopicNames,
    company: str,
    ranges: Sequence[OffsetRange],
    rows: Path,
    on_records: OnRecords = nobody,
    most_bytes: float = inf,
    beat: Callable[[], None] = unheard,
    *,
    rule: int = RULE_VERSION,
    select: Selection = EVERYTHING,
    tools_from: Sequence[OffsetRange] | None = None,
    provenance: Path | None = None,
    on_noticed: OnNoticed = unnoticed,
    places: Places | None = None,
    rules: Mapping[str, Rule] = NO_RULES,
) -> Manifest:
    """Writes the rows to a file and returns their manifest. Never holds the log, and lets others have their turn.

    `tools_from`: what to read for the tools that were on offer before the ranges; None: all that the log has of it.
    `on_noticed` hears, by rule 3, what stands in no manifest.
    `places`: where, by rule 3, the company's records are known to lie; what lies between is not fetched.
    `rules`: those that applications here add; `RuleMissing` where the selection names another.
    `TooMuchData` where the rows grow beyond `most_bytes`.
    """
    parts = {(names.wire(part.topic), part.partition) for part in (*ranges, *(tools_from or ()))}
    told = await letters_of(log, names, dict.fromkeys(parts, 0), beat=beat)
    if rule < THIRD:
        return await _in_order_of_the_log(log, names, company, ranges, told, rows, rule, on_records, most_bytes, beat)
    before = await _before(log, names, ranges) if tools_from is None else tools_from
    wanted = Wanted(company, ranges, before, select, most_bytes, chosen(select.rules, rules))
    done, total = dict[OffsetRange, int](), sum(part.stop - part.start for part in (*before, *ranges))

    def on_range(part: OffsetRange, offset: int) -> None:
        done[part] = offset - part.start
        on_records(sum(done.values()), total)

    return await Learned(log, names, wanted, Slices(beat), places or Places(), told).build(
        rows, provenance, on_range, on_noticed
    )


async def _before(log: EventLog, names: TopicNames, ranges: Sequence[OffsetRange]) -> tuple[OffsetRange, ...]:
    """What the log holds below each range of company-data: tools were registered there."""
    starts = await log.starts(names.wire(DATA_TOPIC))
    data = [part for part in ranges if part.topic == DATA_TOPIC]
    return tuple(
        OffsetRange(topic=DATA_TOPIC, partition=part.partition, start=starts[part.partition], stop=part.start)
        for part in data
        if part.stop > part.start > starts.get(part.partition, part.start)
    )


async def _in_order_of_the_log(
    log: EventLog,
    names: TopicNames,
    company: str,
    ranges: Sequence[OffsetRange],
    letters: Mapping[TopicPartition, Letters],
    rows: Path,
    rule: int,
    on_records: OnRecords,
    most_bytes: float,
    beat: Callable[[], None],
) -> Manifest:
    """Rules 1 and 2."""
    tally, slices = DatasetCounts(rule), Slices(beat)
    done, total = 0, sum(part.stop - part.start for part in ranges)
    with rows.open("wb") as out:
        for part in in_order(ranges):
            async for batch in log.read(names.wire(part.topic), part.partition, part.start, part.stop):
                await _write(out, batch, part.topic, company, letters, tally, most_bytes, slices)
                on_records(done + batch[-1].offset + 1 - part.start, total)
            done += part.stop - part.start
            on_records(done, total)
    return tally.manifest(company, ranges)


async def _write(
    out: BinaryIO,
    batch: Sequence[Record],
    topic: str,
    company: str,
    letters: Mapping[TopicPartition, Letters],
    tally: DatasetCounts,
    most_bytes: float,
    slices: Slices,
) -> None:
    for record in batch:
        for line in _rows(record, topic, company, letters, tally):
            if out.write(line) and out.tell() > most_bytes:
                raise TooMuchData(company, Origin(topic, record.partition, record.offset), most_bytes)
            if slices.over():
                await slices.give_up()
        if slices.over():
            await slices.give_up()


def _rows(
    record: Record, topic: str, company: str, letters: Mapping[TopicPartition, Letters], tally: DatasetCounts
) -> Iterator[bytes]:
    origin = Origin(topic, record.partition, record.offset)
    event = decode(record.value, record.origin, record.timestamp, record.headers)
    tally.records += 1
    if isinstance(event, Rejected) or letters[record.topic, record.partition].hold(record):
        tally.rejected += 1
        return
    for example in select_turns(event, origin, company, tally.rule):
        yield tally.add(example)
