"""Replay on both logs: exact ranges in, the same bytes out, and every gap named. By rule 2, in the order of the log."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import tracemalloc
from functools import partial

import msgspec
import pytest

from processors.dataset.turns import Manifest, parse_row
from rillfold.demo import data
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.errors import MissingOffsets
from streams.history import replay
from streams.history.replay import everything_up_to_now
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, TopicSpec
from tests.support.training import conversations

build = partial(replay.build, rule=2)


@pytest.fixture
async def filled(log: EventLog, names: TopicNames) -> EventLog:
    wire = names.wire("company-data")
    await log.create([TopicSpec(wire, 4)])
    records = []
    for pair in zip(*(conversations(company, 30, requests=5) for company in data.COMPANIES), strict=True):
        records += [to_outgoing(event, names) for event in pair]
    records.insert(7, Outgoing(wire, b"acme", b"\xffnot an event"))
    await log.append(records)
    return log


async def test_rows_are_the_companys_answers_in_the_order_of_the_log(filled, names, tmp_path):
    ranges = await everything_up_to_now(filled, names)
    manifest = await build(filled, names, "acme", ranges, tmp_path / "rows")
    lines = (tmp_path / "rows").read_bytes()
    rows = [parse_row(line) for line in lines.splitlines()]
    assert hashlib.sha256(lines).hexdigest() == manifest.rows_sha256
    places = [(row.topic, row.partition, row.offset, row.turn) for row in rows]
    assert places == sorted(places)
    assert (manifest.records, manifest.rejected) == (71, 1)
    assert (manifest.trained, manifest.held_out) == (len(rows) - 5, 5)
    assert {row.topic for row in rows} == {"company-data"}


async def test_the_manifest_is_the_dataset(filled, names, tmp_path):
    first = await build(filled, names, "acme", await everything_up_to_now(filled, names), tmp_path / "first")
    await filled.append([to_outgoing(event, names) for event in conversations(data.ACME, 5)])
    kept = msgspec.json.decode(msgspec.json.encode(first), type=Manifest)
    again = await build(filled, names, kept.company, kept.ranges, tmp_path / "again")
    assert again == first
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    more = await build(filled, names, "acme", await everything_up_to_now(filled, names), tmp_path / "more")
    assert more.sha256 != first.sha256


async def test_a_batch_of_others_records_leaves_the_loop_to_others(tmp_path):
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec("company-data", 1)])
    value = json.dumps({"type": "text.ingested", "company": "mallory", "text": "x"}).encode()
    await log.append([Outgoing("company-data", b"mallory", value)] * 20_000)
    longest, beats = 0.0, []

    async def others() -> None:
        nonlocal longest
        while True:
            since = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - since)

    other, since = asyncio.create_task(others()), time.monotonic()
    ranges = await everything_up_to_now(log, names)
    manifest = await build(log, names, "acme", ranges, tmp_path / "rows", beat=lambda: beats.append(1))
    took = time.monotonic() - since
    other.cancel()
    assert manifest.records == 20_000
    assert longest < took / 2 and len(beats) > 5


async def test_a_range_that_the_log_does_not_hold_is_named(filled, names, tmp_path):
    beyond = OffsetRange(topic="company-data", partition=0, start=0, stop=10_000)
    with pytest.raises(MissingOffsets, match=r"0, 10000"):
        await build(filled, names, "acme", [beyond], tmp_path / "rows")


async def test_what_retention_took_is_named(tmp_path):
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec("company-data", 1)])
    await log.append([to_outgoing(event, names) for event in conversations(data.ACME, 10)])
    ranges = await everything_up_to_now(log, names)
    log.truncate("company-data", 0, before=3)
    with pytest.raises(MissingOffsets, match="company-data/0"):
        await build(log, names, "acme", ranges, tmp_path / "rows")


async def test_other_names_of_the_topics_do_not_change_the_bytes(tmp_path):
    made = []
    for names in (TopicNames(), TopicNames("prod-"), TopicNames("", {"company-data": "firm_events"})):
        log = MemoryLog()
        await log.create([TopicSpec(names.wire("company-data"), 4)])
        await log.append([to_outgoing(event, names) for event in conversations(data.ACME, 10)])
        made.append(await build(log, names, "acme", await everything_up_to_now(log, names), tmp_path / "rows"))
    assert made[0] == made[1] == made[2]


async def test_progress_only_grows_and_ends_at_the_end(filled, names, tmp_path):
    told: list[tuple[int, int]] = []
    ranges = await everything_up_to_now(filled, names)
    await build(filled, names, "acme", ranges, tmp_path / "rows", lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (71, 71)


async def test_a_long_log_is_never_in_memory(tmp_path):
    """Rows of 40 times the batch that is in hand: what is held at once is one batch and its lines."""
    log, names = MemoryLog(), TopicNames()
    await log.create([TopicSpec("company-data", 1)])
    events = [to_outgoing(event, names) for event in conversations(data.ACME, 200)]
    for _ in range(200):
        await log.append(events)
    ranges = await everything_up_to_now(log, names)
    tracemalloc.start()
    await build(log, names, "acme", ranges, tmp_path / "rows")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "rows").stat().st_size > 10_000_000
    assert peak < 6_000_000
