"""Wishes in great number, taken back or made up: a worker remembers little of each, and hears the others meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gpu_workers.train import known
from gpu_workers.train.known import Known
from processors.training import said as say
from processors.training.admit import NotAdmitted
from projections.training_runs import TRAINING_RUNS
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import (
    OffsetRange,
    TrainingAccepted,
    TrainingFailed,
    TrainingProgressed,
    TrainingRefused,
)
from streams.fold.view import View
from streams.log.memory import MemoryLog
from streams.log.port import Record

from .test_hostile_requests import declines, reasons
from .test_trainer import Office, ended, of
from .test_withdrawn import Endless, and_then, withdrawn

TAKEN_BACK = 300


class CountingLog(MemoryLog):
    """Each reading is a consumer of its own on a real broker, and tens of milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: Counter[str] = Counter()

    def read(self, topic: str, *where: Any) -> AsyncIterator[Sequence[Record]]:
        self.readings[topic] += 1
        return super().read(topic, *where)


@pytest.fixture
async def office(tmp_path, tiny_base) -> Office:
    return await Office(CountingLog(), TopicNames(), tmp_path, tiny_base).open()


def known_of(office: Office) -> Known:
    return Known(office.log, office.names, lambda: None, "one")


async def test_runs_that_nobody_asked_for_have_no_place_in_memory(office) -> None:
    await office.append(*(withdrawn(f"never-{n}") for n in range(200)))
    assert not await known_of(office).up_to_now()


async def test_nothing_that_changes_nothing_makes_a_row(office) -> None:
    """Whatever the projection is: a second word of what is known, and a first one that says nothing."""
    await office.append(office.request("r1"), office.request("r1"), withdrawn("r2"))
    assert set(await View(office.log, office.names, TRAINING_RUNS).catch_up()) == {"acme/r1"}


def accepted(run: str, ranges: int, generation: int = 1, worker: str = "another") -> TrainingAccepted:
    return TrainingAccepted(
        id=f"a-{run}-{generation}",
        company="acme",
        time=2,
        correlation=run,
        run=run,
        worker=worker,
        generation=generation,
        ranges=tuple(OffsetRange(topic="a", partition=n, start=0, stop=0) for n in range(ranges)),
        manifest="m" * 64,
        examples=7,
    )


async def test_of_an_accepted_run_the_ranges_stay_in_the_log_and_are_read_when_they_are_needed(office) -> None:
    many, more = accepted("r1", 20_000), accepted("r1", 3, generation=2)
    await office.append(office.request("r1"), many)
    runs = known_of(office)
    (row,) = (await runs.up_to_now()).values()
    assert (row.status, row.worker, row.generation, row.ranges, row.manifest) == ("accepted", "another", 1, (), "")
    whole = await runs.whole("acme", "r1")
    assert (whole.ranges, whole.manifest, whole.examples) == (many.ranges, many.manifest, 7)
    await office.append(more)
    await runs.up_to_now()
    assert (await runs.whole("acme", "r1")).ranges == more.ranges, "of the newest claim"


async def test_of_each_company_so_many_runs_that_are_over_are_known_and_all_that_wait(
    office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks without end fills no memory: the oldest of his own are let go."""
    monkeypatch.setattr(known, "MOST_OVER", 20)
    waits, claimed = office.request("waits"), office.request("claimed")
    await office.append(waits, claimed, accepted("claimed", 2), office.request("theirs", company="globex"))
    await office.append(
        *(accepted(f"forged-{n}", 2) for n in range(50)), *(withdrawn(f"forged-{n}") for n in range(50))
    )
    for n in range(100):
        asked = office.request(f"r{n}")
        why = NotAdmitted("unknown_base_model", "none here")
        await office.append(asked, say.refused(asked, why, 1, 2))
    await office.append(withdrawn("claimed"))
    runs = known_of(office)
    rows = await runs.up_to_now()
    assert {row.run for row in rows.values()} == {"waits", "claimed", "theirs", *(f"r{n}" for n in range(80, 100))}
    assert {company: set(gone) for company, gone in runs.withdrawn().items() if gone} == {"acme": {"claimed"}}
    assert len((await runs.whole("acme", "claimed")).ranges) == 2
    assert [run.run for run in runs.begun("acme", 3)] == ["claimed"]


async def test_how_far_an_accepted_run_is_is_known_still(office) -> None:
    """Said twice, a step counts once, and what an earlier claim says not at all."""
    step = TrainingProgressed(
        id="p", company="acme", time=5, correlation="r1", run="r1", phase="train", step=1, steps=2, generation=2
    )
    late = TrainingProgressed(
        id="q", company="acme", time=9, correlation="r1", run="r1", phase="train", step=2, steps=2, generation=1
    )
    await office.append(office.request("r1"), accepted("r1", 1, generation=2), step, step, late)
    (row,) = (await known_of(office).up_to_now()).values()
    assert (row.phase, row.step, row.worked) == ("train", 1, 3)


async def test_a_great_many_wishes_taken_back_are_ended_without_reading_their_words(office) -> None:
    """What is said of them needs none, and the next company's run begins."""
    endless = Endless()
    runs = [f"r{n}" for n in range(TAKEN_BACK)]
    await office.append(office.request("long"), *(office.request(run) for run in runs))
    readings: Counter[str] = Counter()

    async def takes_back() -> None:
        await endless.begun.wait()
        await asyncio.sleep(1)  # all are held
        readings.update(office.log.readings)
        await office.append(withdrawn("long"), *(withdrawn(run) for run in runs))
        await office.append(office.request("wanted", company="globex"))

    changes_his_mind = asyncio.create_task(takes_back())
    said = await office.until(office.trainer(train=and_then(endless, declines)), ended("long", "wanted", *runs))
    await changes_his_mind
    assert Counter(reasons(said).values()) == {"withdrawn": TAKEN_BACK + 1, "declined": 1}
    assert len(of(said, TrainingRefused)) == TAKEN_BACK, "one outcome each"
    again = (office.log.readings - readings)[office.names.wire("training-request")]
    assert again < TAKEN_BACK / 3, f"read {again} times"


async def test_an_outcome_of_a_wish_taken_back_belongs_to_the_story_that_its_request_is_of(office) -> None:
    endless = Endless()
    told = office.request("told")
    await office.append(office.request("long"), type(told)(**{**fields(told), "correlation": "a story"}))

    async def takes_back() -> None:
        await endless.begun.wait()
        await asyncio.sleep(0.5)
        await office.append(withdrawn("told"))
        await office.watch(ended("told"))
        await office.append(withdrawn("long"))

    changes_his_mind = asyncio.create_task(takes_back())
    said = await office.until(office.trainer(train=and_then(endless, declines)), ended("long", "told"))
    await changes_his_mind
    (refused,) = of(said, TrainingRefused)
    assert (refused.run, refused.causation, refused.correlation) == ("told", "told", "a story")


async def test_wishes_that_somebody_had_begun_are_ended_a_few_a_turn(office) -> None:
    """Each needs its claim read: the worker polls, and hears others, in between."""
    runs = [f"r{n}" for n in range(100)]
    await office.append(*(office.request(run) for run in runs), *(accepted(run, 2) for run in runs))
    await office.append(*(withdrawn(run) for run in runs), office.request("wanted", company="globex"))
    said = await office.until(office.trainer(train=declines), ended("wanted", *runs))
    assert Counter(reasons(said).values()) == {"withdrawn": 100, "declined": 1}
    assert {event.run for event in of(said, TrainingFailed) if event.reason == "withdrawn"} == set(runs)
    claims = [event for event in of(said, TrainingAccepted) if event.worker == "one" and event.company == "acme"]
    assert {event.ranges for event in claims} == {accepted("r0", 2).ranges}, "as they were accepted"


def fields(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
