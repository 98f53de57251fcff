"""A projection of several sources, folded anew from nothing: as it was, and without doing anything a second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from msgspec import structs

from processors.saga import ACTING_JOBS
from projections.jobs import Job
from projections.projection import Projection
from projections.sessions import SESSIONS
from rillfold.testing.driver import Consumer, Driver
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceRequested
from schemas.jobs import JobRequested
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TopicNames
from streams.fairness import slices
from streams.fold.batch import Batch
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.fold.owed import before
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import Outgoing, TopicSpec, extents, records_in
from streams.state.changelog import (
    Loss,
    Marker,
    Rows,
    SeenMissing,
    loss_record,
    marker_record,
    missing_record,
    topic_of,
)
from streams.state.store import MemoryStore

TOOLS = '[{"name":"refund","parameters":{"properties":{"order":{"type":"string"}}}}]'
CALL = '<tool_call>\n{"name": "refund", "arguments": {"order": "7"}}\n</tool_call>'
GROUP = "rillfold-driver"


def model(event: Event, now: int) -> tuple[Event, ...]:
    assert isinstance(event, InferenceRequested)
    replies = [message.content for message in event.messages if message.role == "tool"]
    fields = {"request": event.id, "job": event.job, "text": replies[0] if replies else CALL, "model": "m"}
    tokens = {"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop"}
    return (InferenceCompleted(**caused_by(event, "answer", now), **fields, **tokens),)


def tool(event: Event, now: int) -> tuple[Event, ...]:
    assert isinstance(event, ToolCallProposed)
    fields = {"call": event.call, "job": event.job, "tool": event.tool, "ok": True, "status": 200, "body": "done"}
    return (ToolReturned(**caused_by(event, "returned", now), **fields),)


class Anew:
    """A worker with an empty disk and an empty changelog, on a log that has seen it all."""

    def __init__(self, log: MemoryLog, projection: Projection[Job] = ACTING_JOBS) -> None:
        self.sent: list[Event] = []
        self._log, self._changelog, self._projection = log, count(0), projection
        self.folding = Folding([projection], TopicNames(), Ports(self._publish, self._append, FailPoint()))
        self.stores: dict[int, MemoryStore] = {}

    async def _publish(self, events: Sequence[Event]) -> None:
        self.sent += events

    async def _append(self, topic: str, partition: int, rows: Rows) -> int:
        return max(next(self._changelog) for _ in rows)

    async def rows(self) -> dict[int, dict[str, object]]:
        found = {}
        for partition in await self._log.ends(topic_of(ACTING_JOBS)):
            store = self.stores.setdefault(partition, MemoryStore())
            shard = self.folding.open(self._projection, partition, store)
            shard.restored()
            await self.folding.catch_up([shard], self._log, GROUP)
            if rows := dict(shard.rows()):
                found[partition] = rows
        return found


def requested(n: int) -> JobRequested:
    fields = {"id": f"r-{n}", "company": "acme", "time": 1, "correlation": f"r-{n}", "job": f"j{n}"}
    return JobRequested(**fields, task="Refund order 7", tools=TOOLS)


async def finished_jobs(log: MemoryLog, projection: Projection[Job] = ACTING_JOBS) -> dict[int, dict[str, object]]:
    consumers = [Consumer("model", ("inference-request",), model), Consumer("tools", ("tool-call",), tool)]
    async with Driver(log, [projection], consumers=consumers) as driver:
        driver.clock = count(1_700_000_000_000).__next__  # type: ignore[assignment]  # no two records at one moment
        for n in range(12):
            await driver.send(requested(n))
        await driver.settle()
        return driver._rows(projection)


async def test_jobs_end_as_they_ended_and_nothing_is_sent_again():
    log = MemoryLog()
    was = await finished_jobs(log)
    again = Anew(log)
    assert await again.rows() == was
    assert sum(len(rows) for rows in was.values()) == 12
    assert again.sent == []


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_group_that_has_committed_nothing_sends_only_what_the_log_does_not_hold(lost: int):
    """A group of its own, or one whose offsets have expired: with the same ids."""
    log = MemoryLog()
    await finished_jobs(log)
    log._groups.clear()
    calls = [part for part in log._topics["tool-call"] if part.records]
    gone = [part.records.pop() for part in calls[:lost]]
    again = Anew(log)
    await again.rows()
    async with Driver(log, [ACTING_JOBS]) as driver:
        there = {event.id for event in await driver.events("tool-call")}
    assert [type(event) for event in again.sent] == [ToolCallProposed] * lost
    assert len(gone) == lost and not there & {event.id for event in again.sent}


def refuses(job: str, inputs: type[Event]) -> Projection[Job]:
    """A version with a bug: it raises for one input of one job."""

    def fold(state: Job, event: Event) -> Job:
        if isinstance(event, inputs) and getattr(event, "job", None) == job:
            raise KeyError("a bug of this version")
        return ACTING_JOBS.fold(state, event)

    return replace(ACTING_JOBS, fold=fold)


NEXT = replace(ACTING_JOBS, version=ACTING_JOBS.version + 1)


@pytest.mark.parametrize("inputs", [JobRequested, InferenceCompleted, ToolReturned])
async def test_what_follows_from_an_event_that_an_earlier_version_refused_is_sent_by_the_next(inputs: type[Event]):
    """Everything is committed. The job would hang for ever: nobody else would ask for what it waits for."""
    log = MemoryLog()
    await finished_jobs(log, refuses("j3", inputs))
    again = Anew(log, NEXT)
    rows = await again.rows()
    assert {getattr(event, "job", None) for event in again.sent} == {"j3"}
    assert len({event.id for event in again.sent}) == len(again.sent)
    jobs = {key: job for part in rows.values() for key, job in part.items()}
    assert len(jobs) == 12
    assert "acme/j3" in jobs


@pytest.mark.parametrize("versions", [1, 7, 40])
async def test_what_follows_from_an_event_that_a_release_refused_is_sent_when_it_was_taken_back(versions: int):
    """The group has committed it, the older version has not folded it, and its own changelog names no refusal."""
    log, asked = MemoryLog(), list[str]()
    bad = replace(refuses("j3", JobRequested), version=ACTING_JOBS.version + versions)
    between = [replace(ACTING_JOBS, version=version) for version in range(ACTING_JOBS.version + 9, bad.version, 9)]
    await log.create([TopicSpec(topic_of(each), 4) for each in between])
    for projection, numbers in ((ACTING_JOBS, range(1)), (bad, range(1, 6)), (ACTING_JOBS, range(6, 7))):
        async with Driver(log, [projection]) as driver:
            for n in numbers:
                await driver.send(requested(n))
            await driver.settle()
            asked = [e.job for e in await driver.events("inference-request") if isinstance(e, InferenceRequested)]
            assert len(asked) == len(set(asked))
    assert sorted(asked) == [f"j{n}" for n in range(7)]


async def test_a_new_version_of_one_source_sends_what_follows_from_what_the_first_refused_and_nothing_else():
    one = replace(ACTING_JOBS, name="one", topics=ACTING_JOBS.topics[:1])
    log = MemoryLog()
    first = replace(refuses("j3", JobRequested), name=one.name, topics=one.topics)
    for projection in (first, replace(one, version=NEXT.version)):
        async with Driver(log, [projection]) as driver:
            if projection is first:
                for n in range(6):
                    await driver.send(requested(n))
            await driver.settle()
            asked = [e.job for e in await driver.events("inference-request") if isinstance(e, InferenceRequested)]
            assert len(asked) == len(set(asked))
            assert ("j3" in asked) == (projection is not first)


async def test_a_later_version_still_knows_what_the_first_refused():
    log = MemoryLog()
    await finished_jobs(log, refuses("j3", JobRequested))
    again = Anew(log, replace(ACTING_JOBS, version=ACTING_JOBS.version + 7))
    await again.rows()
    assert {getattr(event, "job", None) for event in again.sent} == {"j3"}


@pytest.mark.parametrize("meanwhile", [False, True])
async def test_what_one_shard_tells_as_it_catches_up_the_other_does_not_tell_again(
    meanwhile: bool, monkeypatch: Any
) -> None:
    """Both feed on one source; only the one that acts reads it before it flows. The poison comes while it looks."""
    log, names, next_ = MemoryLog(), TopicNames(), count(0)
    async with Driver(log, [ACTING_JOBS, SESSIONS]):
        poison = Outgoing(ACTING_JOBS.topics[0], b"acme/1", b"no event", partition=0)

    async def publish(events: Sequence[Event]) -> None:
        await log.append([to_outgoing(event, names) for event in events])

    async def append(topic: str, partition: int, rows: Rows) -> int:
        return max(next(next_) for _ in rows)

    folding = Folding([ACTING_JOBS, SESSIONS], names, Ports(publish, append, FailPoint()))
    looked = folding._look_at_ground

    async def look(*given: Any) -> None:
        await looked(*given)
        if meanwhile:
            await log.append([poison])

    monkeypatch.setattr(folding, "_look_at_ground", look)
    shards = [folding.open(each, 0, MemoryStore()) for each in (ACTING_JOBS, SESSIONS)]
    for shard in shards:
        shard.restored()
    if not meanwhile:
        await log.append([poison])
    await folding.catch_up(shards, log, GROUP)
    start = folding.begin(poison.topic, 0, (await extents(log, poison.topic))[0])
    assert start == 0
    records = [record async for record in records_in(log, poison.topic, 0, start)]
    await folding.step(Batch(poison.topic, 0, start, 1, records))
    assert sum((await log.ends("dead-letter")).values()) == 1
    assert folding._grounds == {}


async def test_a_source_that_was_made_anew_with_fewer_partitions_is_left_to_whoever_begins_it() -> None:
    log = MemoryLog()
    await finished_jobs(log)
    del log._topics["tool-result"][1:]
    await Anew(log).rows()


async def test_a_shard_that_catches_up_is_watched_and_claimed_as_what_it_is() -> None:
    folding = Anew(MemoryLog()).folding
    shard = folding.open(ACTING_JOBS, 0, MemoryStore())
    with shard.folding_as(replace(ACTING_JOBS, react=lambda *_: ())):
        assert folding.sources_of(shard.projection) == list(ACTING_JOBS.topics)
        folding.claim(shard.changelog, 0)
    assert next(iter(folding.shards())).projection is ACTING_JOBS


async def test_of_what_earlier_versions_refused_is_held_what_is_still_to_be_folded(monkeypatch):
    """A company may have had millions refused. Who reads of them gets on, and says so to whoever watches."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    log, beats = MemoryLog(), list[int]()
    await finished_jobs(log, refuses("j3", JobRequested))
    for said, starts in (("refused", {}), ("companies", dict.fromkeys(ACTING_JOBS.topics, 1_000))):
        found = list[object]()
        for partition in await log.ends(topic_of(ACTING_JOBS)):
            shard = Anew(log, NEXT).folding.open(NEXT, partition, MemoryStore())
            left = await before(log, shard, TopicNames(), starts, lambda: beats.append(1))
            assert not (left.refused and left.companies)
            found += getattr(left, said)
        assert [getattr(each, "company", each) for each in found] == ["acme"]
    assert len(beats) >= 2 * sum(len(part.records) for part in log._topics[topic_of(ACTING_JOBS)])


async def test_a_catch_up_that_was_broken_off_loses_nothing_of_what_an_earlier_version_refused():
    """The rows of what was refused below its marker are not known any more: all of that company's is sent."""
    log = MemoryLog()
    await finished_jobs(log, refuses("j3", InferenceCompleted))
    again = Anew(log, NEXT)

    async def breaks(events: Sequence[Event]) -> None:
        raise OSError

    again.folding._ports = again.folding._ports._replace(publish=breaks)
    with pytest.raises(OSError):
        await again.rows()
    again.folding._ports = again.folding._ports._replace(publish=again._publish)
    await again.rows()
    assert "j3" in {getattr(event, "job", None) for event in again.sent}


@pytest.mark.parametrize("restarts", [1, 2])
async def test_what_was_committed_of_records_that_are_lost_says_nothing_of_those_in_their_place(restarts: int) -> None:
    """The end of a source is lost, it grows beyond that again, and an operator lets it go on: each new job is asked."""
    log, topic = MemoryLog(), "automation-job"
    await finished_jobs(log)
    worker = Anew(log)
    await worker.rows()
    number = next(n for n, part in enumerate(log._topics[topic]) if part.records)
    marker, part = (await log.ends(topic))[number], log._topics[topic][number]
    part.records[:], part.end = part.records[:-5], part.end - 5
    jobs = [n for n in range(100, 900) if partition_of(to_outgoing(requested(n), TopicNames()).key or b"", 4) == number]
    sent, word = list[Event](), {f"{topic}/{number}@{marker}": marker - 5}
    for accepted in [{}] + restarts * [word]:
        again = Anew(log)
        again.stores, ports = worker.stores, Ports(again._publish, again._append, FailPoint())
        again.folding = Folding([ACTING_JOBS], TopicNames(), ports, accepted)
        await again.rows()
        sent += again.sent
        if not accepted:  # it is seen to be lost before it grows
            for n in jobs[:8]:
                await log.append([to_outgoing(requested(n), TopicNames())])
    asked = [event.job for event in sent if isinstance(event, InferenceRequested)]
    assert sorted(asked) == sorted(f"j{n}" for n in jobs[:8])


@pytest.mark.parametrize("accepted", [False, True])
async def test_what_an_earlier_version_folded_of_records_that_are_lost_says_nothing_of_those_in_their_place(
    accepted: bool,
) -> None:
    """It has seen that they are gone, or gone on by an operator's word. The next one knows of neither by itself."""
    log, topic = MemoryLog(), "automation-job"
    await finished_jobs(log)
    number = next(n for n, part in enumerate(log._topics[topic]) if part.records)
    marker, part = (await log.ends(topic))[number], log._topics[topic][number]
    part.records[:], part.end = part.records[:-5], part.end - 5
    rows = [missing_record(SeenMissing(topic, number, 0, part.end, accepted))]
    if accepted:
        rows += [loss_record(Loss(topic, number, marker, part.end)), marker_record(Marker(topic, number, part.end))]
    for key, value in rows:
        await log.append([Outgoing(topic_of(ACTING_JOBS), key, value, partition=number)])
    jobs = [n for n in range(100, 900) if partition_of(to_outgoing(requested(n), TopicNames()).key or b"", 4) == number]
    for n in jobs[:8]:
        await log.append([to_outgoing(requested(n), TopicNames())])
    again = Anew(log, NEXT)
    await again.rows()
    asked = [event.job for event in again.sent if isinstance(event, InferenceRequested)]
    assert sorted(asked) == sorted(f"j{n}" for n in jobs[:8])


async def test_a_version_that_stood_still_says_nothing_of_what_a_later_one_has_folded_since() -> None:
    log, topic = MemoryLog(), "automation-job"
    await finished_jobs(log, NEXT)
    await log.create([TopicSpec(topic_of(ACTING_JOBS), 4)])
    for number in range(4):
        for key, value in (
            marker_record(Marker(topic, number, 99)),
            missing_record(SeenMissing(topic, number, 0, 0)),
        ):
            await log.append([Outgoing(topic_of(ACTING_JOBS), key, value, partition=number)])

    def other_words(state: Job, event: Event, now: int) -> tuple[Event, ...]:
        assert ACTING_JOBS.react is not None
        return tuple(structs.replace(each, id=f"{each.id}-anew") for each in ACTING_JOBS.react(state, event, now))

    again = Anew(log, replace(ACTING_JOBS, version=ACTING_JOBS.version + 2, react=other_words))
    await again.rows()
    assert again.sent == []
