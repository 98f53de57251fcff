"""What the log says of old records: a letter is data, and times are their producers' word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from projections.companies import COMPANIES
from projections.datasets import DATASETS
from rillfold.demo import data
from rillfold.testing.driver import Driver
from schemas.envelope import Event
from schemas.rejected import Header, RecordRejected
from schemas.topics import TopicNames
from streams.fairness import slices
from streams.fold.batch import Batch, decode_from
from streams.fold.catch_up import STRETCH, STRETCH_BYTES, _stretches
from streams.fold.dead_letter import CUT, dead_letter
from streams.fold.old_ground import LetterReading, OldGround, letters_of
from streams.fold.owed import Sent
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import Outgoing, Record, records_in
from tests.support.training import conversations

NAMES = TopicNames()
TALKS = conversations(data.ACME, 6)
DAY, NOW = 86_400_000, 1_700_000_000_000
POISON = b"no event"


def forged(place: Record, key: bytes | None, value: bytes | None, cut: bytes | None = None) -> RecordRejected:
    """By somebody who may write to the dead-letter topic itself."""
    about = {"topic": place.topic, "partition": place.partition, "offset": place.offset, "timestamp": place.timestamp}
    own = {"id": f"f-{place.offset}", "company": "mallory", "time": 1, "correlation": "f"}
    headers = () if cut is None else (Header(key=CUT, value=cut),)
    return RecordRejected(**own, **about, key=key, value=value, headers=headers, reason="bad", detail="forged")


def forgeries(place: Record) -> list[RecordRejected]:
    key, value = place.key or b"", place.value or b""
    some = [(None, None), (b"", b""), (key, None), (key, value[:-1]), (key[:-1], value), (key, value + b" ")]
    return [forged(place, *each) for each in some] + [forged(place, key[:2], value[:2], b"%d" % (len(value) + 1))]


async def standing(log: MemoryLog, topic: str) -> list[Record]:
    return [record for n in await log.ends(topic) async for record in records_in(log, topic, n, 0)]


async def test_a_letter_that_is_not_of_the_very_record_leaves_nothing_out() -> None:
    log = MemoryLog()
    async with Driver(log, [COMPANIES]) as driver:
        for talk in TALKS:
            await driver.send(talk)
        await driver.settle()
    for place in await standing(log, "company-data"):
        await log.append([to_outgoing(letter, NAMES) for letter in forgeries(place)])
    async with Driver(log, [COMPANIES, DATASETS]) as driver:
        await driver.settle()
        assert sum(row.events for part in driver._rows(DATASETS).values() for row in part.values()) == len(TALKS)
        assert await driver.digest(DATASETS) == await driver.refold(DATASETS)


@pytest.mark.parametrize("limit", [1 << 20, 64, 0])
async def test_neither_a_cut_nor_a_forged_letter_hides_the_true_one(limit: int) -> None:
    log = MemoryLog()
    async with Driver(log, []):
        await log.append([Outgoing("company-data", b"acme/1", POISON * 20, (("h", b"x"),), 0)])
        await log.append([Outgoing("company-data", b"acme/1", POISON * 20 + b"!", (("h", b"x"),), 0)])
        one, other = await standing(log, "company-data")
        (refused,) = decode_from(Batch("company-data", 0, 0, 1, [one]), 0, NAMES.events_on("company-data")).refused
        letters = [*forgeries(one), dead_letter(refused, limit), *forgeries(one)]
        await log.append([to_outgoing(letter, NAMES) for letter in letters])
        held = (await letters_of(log, NAMES, {("company-data", 0): 0}))["company-data", 0]
        assert held.hold(one)
        assert not held.hold(other) and not held.hold(other._replace(offset=0))
        assert not held.hold(one._replace(timestamp=one.timestamp + 1)), "its topic was made anew: it is another record"


async def test_letters_about_what_is_not_there_are_not_held() -> None:
    """Somebody may have written millions of them: who takes over would read as long, and hold them all."""
    log = MemoryLog()
    async with Driver(log, []):
        await log.append([poison(NOW)])
        (one,) = await standing(log, "company-data")
        far = [forged(one._replace(offset=offset), b"k", b"v") for offset in range(1, 500)]
        await log.append([to_outgoing(letter, NAMES) for letter in (*far, forged(one, one.key, one.value))])
        held = (await letters_of(log, NAMES, {("company-data", 0): 0}))["company-data", 0]
        assert held.hold(one) and len(held) == 1


async def test_an_empty_letter_is_of_an_empty_record() -> None:
    log = MemoryLog()
    async with Driver(log, []):
        await log.append([Outgoing("company-data", None, None, partition=0)])
        (empty,) = await standing(log, "company-data")
        await log.append([to_outgoing(forged(empty, None, None), NAMES)])
        held = (await letters_of(log, NAMES, {("company-data", 0): 0}))["company-data", 0]
        assert held.hold(empty) and not held.hold(empty._replace(value=b"x"))


def poison(time: int) -> Outgoing:
    return Outgoing("company-data", b"acme", POISON, partition=0, timestamp=time)


async def test_what_was_told_of_a_record_that_is_older_than_those_before_it_is_found() -> None:
    """A producer's clock goes back by days: the letter is older than the first record that was looked at."""
    log = MemoryLog(lambda: NOW)
    async with Driver(log, []):
        await log.append([poison(NOW), poison(NOW - 9 * DAY), poison(NOW - 20 * DAY)])
        records = await standing(log, "company-data")
        decoded = [decode_from(batch_of(each), each.offset, NAMES.events_on(each.topic)) for each in records]
        for each, ago in zip(decoded, (0, 8, 19), strict=True):
            letter = to_outgoing(dead_letter(each.refused[0]), NAMES)
            await log.append([letter._replace(timestamp=NOW - ago * DAY)])
        # In the order of the log's own clock, as a broker has them.
        for part in log._topics["dead-letter"]:
            ordered = sorted(part.records, key=lambda record: record.timestamp)
            part.records = [record._replace(offset=n) for n, record in enumerate(ordered)]
        reading = LetterReading(log, NAMES, {("company-data", 0): 0})
        ground = OldGround(3, False, reading)
        assert [list((await ground.judged(each)).refused) for each in decoded] == [[], [], []]


async def test_letters_about_what_is_folded_are_not_held_and_are_read_where_a_marker_went_back(monkeypatch) -> None:
    """A company may have had millions told. Who reads them gets on, and says so to whoever watches."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    log, beats = MemoryLog(lambda: NOW), []
    async with Driver(log, []):
        await log.append([poison(NOW) for _ in range(40)])
        records = await standing(log, "company-data")
        decoded = [decode_from(batch_of(each), each.offset, NAMES.events_on(each.topic)) for each in records]
        await log.append([to_outgoing(dead_letter(each.refused[0]), NAMES) for each in decoded])
        reading = LetterReading(log, NAMES, {("company-data", 0): 38}, lambda: beats.append(1))
        ground = OldGround(40, False, reading)
        assert not (await ground.judged(decoded[38])).refused
        assert len(await reading.of(("company-data", 0), NOW, 38)) == 2
        assert len(beats) >= 40
        assert not (await ground.judged(decoded[7])).refused
        assert len(await reading.of(("company-data", 0), NOW, 38)) == 33


async def test_what_is_read_of_letters_is_progress_of_the_fold(monkeypatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    log = MemoryLog(lambda: NOW)
    async with Driver(log, [COMPANIES]) as driver:
        await log.append([poison(NOW) for _ in range(40)])
        await driver.settle()
        assert sum(each._folding.beats for each in driver._fold_workers()) == 0
    await log.append([poison(NOW)])
    async with Driver(log, [COMPANIES]) as driver:
        await driver.settle()
        assert sum(each._folding.beats for each in driver._fold_workers()) >= 40


async def test_what_one_told_is_in_each_later_reading_whoever_had_it_read() -> None:
    """B has all of the log read, A tells a letter, and then A meets an older record and takes what was read for B."""
    log, places = MemoryLog(lambda: NOW), [("company-data", 0), ("company-data", 1)]
    async with Driver(log, []):
        for partition in (0, 1):
            await log.append([poison(time)._replace(partition=partition) for time in (NOW, NOW - 9 * DAY)])
        reading = LetterReading(log, NAMES, dict.fromkeys(places, 0))
        a, b = (OldGround(2, False, reading) for _ in places)
        records = await standing(log, "company-data")
        decoded = [decode_from(batch_of(each), each.offset, NAMES.events_on(each.topic)) for each in records]
        (young, old), of_b = decoded[:2], decoded[2:]
        refused = await a.judged(young)
        for each in of_b:
            await b.judged(each)
        await log.append([to_outgoing(dead_letter(each), NAMES) for each in refused.refused])
        a.told(refused)
        assert len((await a.judged(old)).refused) == 1
        assert list((await a.judged(young)).refused) == [], "as another projection comes to it that is behind"


def batch_of(record: Record) -> Batch:
    return Batch(record.topic, record.partition, record.offset, record.offset + 1, [record])


async def test_an_effect_of_an_older_event_than_those_before_it_is_found() -> None:
    log, sent = MemoryLog(), list[Event]()

    async def publish(events: Any) -> None:
        sent.extend(events)

    async with Driver(log, []):
        first, old = TALKS[:2]
        await log.append([to_outgoing(old, NAMES)._replace(timestamp=NOW - 8 * DAY)])
        await log.append([to_outgoing(first, NAMES)._replace(timestamp=NOW)])
        effects = Sent(log, NAMES)
        absent = effects.publishing(publish)
        for time, event in ((NOW, first), (NOW - 9 * DAY, old), (NOW, first)):
            effects.look_from(time)
            await absent([event])
        assert sent == []


@pytest.mark.parametrize("size, count", [(10, STRETCH), (4 << 20, 4), (STRETCH_BYTES + 1, 1)])
@pytest.mark.parametrize("headers", [False, True])
async def test_what_is_held_at_once_of_sources_is_bounded_by_its_bytes(size: int, count: int, headers: bool) -> None:
    """A broker's limit is about what is packed: records of 30 MiB take it a few kilobytes."""
    value = bytes(size)
    one = Record("company-data", 0, 0, 1, None, b"" if headers else value, (("h", value),) if headers else ())

    async def records() -> AsyncIterator[Record]:
        for _ in range(3 * count):
            yield one

    assert [len(stretch) async for stretch in _stretches(records())] == [count] * 3


async def test_a_header_weighs_more_than_its_text() -> None:
    async def records() -> AsyncIterator[Record]:
        for _ in range(4):
            yield Record("company-data", 0, 0, 1, None, b"", (("", b""),) * (STRETCH_BYTES // 100))

    assert [len(stretch) async for stretch in _stretches(records())] == [2, 2]


async def test_what_was_sent_is_read_with_signs_of_progress(monkeypatch) -> None:
    """One record that says that it is old has a whole partition of effects read."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    log, beats = MemoryLog(), list[int]()

    async def nothing(events: Any) -> None:
        assert not events

    async with Driver(log, []):
        await log.append([to_outgoing(talk, NAMES) for talk in TALKS])
        await Sent(log, NAMES, lambda: beats.append(1)).publishing(nothing)(TALKS[:1])
    place = partition_of(to_outgoing(TALKS[0], NAMES).key or b"", len(log._topics["company-data"]))
    assert len(beats) >= len(log._topics["company-data"][place].records) > 0


async def test_who_has_all_of_the_ground_keeps_no_letters_of_it() -> None:
    """They are shared: a partition on which nothing comes any more would keep those of all."""
    log = MemoryLog(lambda: NOW)
    async with Driver(log, [COMPANIES]) as driver:
        await log.append([poison(NOW)._replace(partition=partition) for partition in range(3) for _ in range(4)])
        await driver.settle()
        assert [each._folding._grounds for each in driver._fold_workers()] == [{}]
    await log.append([poison(NOW)])
    async with Driver(log, [COMPANIES, DATASETS], workers=1) as driver:
        await driver.settle()
        assert [each._folding._grounds for each in driver._fold_workers()] == [{}]
