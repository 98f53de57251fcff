"""A worker that lost its run without hearing of it: whatever comes of the run there, nothing is said."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import reduce
from typing import Any

import pytest
from msgspec import structs

from gpu_workers.train import worker, world
from gpu_workers.train.handling import TRIES
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import TRAINING_RUNS
from schemas.adapters import AdapterJudged, AdapterReady
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import (
    OffsetRange,
    TrainingAccepted,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    TrainingWithdrawn,
)
from streams.fold.view import View
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import EventLog
from tests.support.made import made_once

from .test_hostile_requests import declines, reasons
from .test_trainer import ENDS, Office, ended, of, office  # noqa: F401


class Sleepy:
    """A log whose member of a group can be put to sleep: the group lets go of it, and it hears so when it wakes."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.sleeps, self.gone, self.awake = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[Any]:
        async with AsyncExitStack() as member:
            self.inner = await member.enter_async_context(self._log.subscribe(group, topics))
            yield Sleeper(self, member, group, topics)


class Sleeper:
    def __init__(self, log: Sleepy, member: AsyncExitStack, *whose: Any) -> None:
        self._log, self._member, self._whose = log, member, whose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log.inner, name)

    async def poll(self, *arguments: Any) -> Any:
        if self._log.sleeps.is_set() and not self._log.awake.is_set():
            await self._member.aclose()
            self._log.gone.set()
            await self._log.awake.wait()
            self._log.inner = await self._member.enter_async_context(self._log._log.subscribe(*self._whose))
        return await self._log.inner.poll(*arguments)


class Held:
    """A child that says nothing until it is let go, and then ends as told."""

    def __init__(self, then: Callable) -> None:
        self._then, self.begun, self.go = then, asyncio.Event(), asyncio.Event()

    async def __call__(self, spec, on_report):
        self.begun.set()
        await self.go.wait()
        return await self._then(spec, on_report)


@pytest.mark.parametrize("then", [declines, made_once], ids=["broken", "trained"])
async def test_who_lost_a_run_says_nothing_of_its_end(office: Office, then: Callable) -> None:  # noqa: F811
    await office.append(office.request("r1"))
    sleepy, his, hers = Sleepy(office.log), Held(then), Held(made_once)
    late = office.trainer(sleepy, train=his)
    tasks = [asyncio.create_task(late.run(lambda: None))]
    try:
        async with asyncio.timeout(60):
            await his.begun.wait()
            sleepy.sleeps.set()
            await sleepy.gone.wait()
            tasks.append(asyncio.create_task(office.trainer(name="two", train=hers).run(lambda: None)))
            await hers.begun.wait()
            his.go.set()
            while not late._begun.done():  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
            assert not of(await office.said(), ENDS)
            hers.go.set()
            await office.watch(ended("r1"))
            sleepy.awake.set()
            while late._begun.work:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    said = await office.said()
    first, second = of(said, TrainingAccepted)
    assert [first.worker, second.worker] == ["one", "two"]
    (outcome,) = of(said, ENDS)
    assert isinstance(outcome, TrainingCompleted)
    assert outcome.generation == second.generation > first.generation
    assert len(await office.ready()) == 1


@pytest.fixture
async def quiet(tmp_path, tiny_base) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


@pytest.mark.parametrize("taken_back", [False, True], ids=["trains", "taken back"])
async def test_a_run_that_came_back_is_claimed_once_more_and_has_its_outcome(
    quiet: Office, monkeypatch: pytest.MonkeyPatch, taken_back: bool
) -> None:
    """Another claimed it and is gone again, by a number above what the group counts."""
    monkeypatch.setattr(worker, "LOST_SECONDS", 0.0)
    await quiet.append(quiet.request("r1"))
    held = Held(declines)
    work = asyncio.create_task(quiet.until(quiet.trainer(train=held), ended("r1"), 10))
    await held.begun.wait()
    (claim,) = of(await quiet.said(), TrainingAccepted)
    more = [TrainingWithdrawn(id="w", company="acme", time=3, correlation="r1", run="r1", reason="")]
    await quiet.append(structs.replace(claim, id="c", worker="two", generation=40), *(more if taken_back else []))
    if not taken_back:
        held.go.set()
    said = await work
    assert reasons(said) == {("acme", "r1"): "withdrawn" if taken_back else "declined"}
    assert [event.generation for event in of(said, ENDS)] == [41]
    assert [(event.worker, event.generation) for event in of(said, TrainingAccepted)[1:]] == [("two", 40), ("one", 41)]


async def elsewhere(office: Office, *events: Event) -> set[int]:  # noqa: F811
    """A client with another partitioner: in every partition but that of the company, whose number is left out."""
    wire = office.names.wire("training-request")
    count = len(await office.log.starts(wire))
    home = partition_of(b"acme", count)
    others = set(range(count)) - {home}
    records = [to_outgoing(event, office.names) for event in events]
    await office.log.append([record._replace(partition=n) for n in sorted(others) for record in records])
    return others


async def done_with(office: Office, partitions: set[int]) -> None:  # noqa: F811
    wire = office.names.wire("training-request")
    ends = await office.log.ends(wire)
    while True:
        committed = await office.log.committed(worker.GROUP, wire)
        if all(committed.get(n) == ends[n] for n in partitions):
            return
        await asyncio.sleep(0.01)


async def test_a_request_in_several_partitions_is_one_run_of_one_worker(quiet: Office) -> None:
    """And a wish that is taken back in the wrong one is taken back."""
    held = Held(declines)
    workers = [asyncio.create_task(quiet.trainer(name=name, train=held).run(lambda: None)) for name in ("one", "two")]
    try:
        async with asyncio.timeout(20):
            request = quiet.request("r1")
            await quiet.append(request)
            others = await elsewhere(quiet, request, quiet.request("r2"))
            await held.begun.wait()
            await done_with(quiet, others)
            assert len(of(await quiet.said(), TrainingAccepted)) == 1
            said = {"company": "acme", "time": 3, "correlation": "r2"}
            await done_with(quiet, await elsewhere(quiet, TrainingWithdrawn(id="w", **said, run="r2", reason="")))
            held.go.set()
            await quiet.watch(ended("r1", "r2"))
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    found = of(await quiet.said(), ENDS)
    assert [(event.run, event.reason) for event in found] == [("r2", "withdrawn"), ("r1", "declined")]


async def test_what_stood_elsewhere_and_has_ended_is_not_sent_again(quiet: Office) -> None:
    await elsewhere(quiet, quiet.request("r1"))
    await quiet.until(quiet.trainer(train=declines), ended("r1"))
    before = len(await quiet.said())
    others = await elsewhere(quiet, quiet.request("r1"))
    work = asyncio.create_task(quiet.trainer(name="two", train=declines).run(lambda: None))
    try:
        async with asyncio.timeout(20):
            await done_with(quiet, others)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert len(await quiet.said()) == before + len(others)


def test_a_row_that_lies_elsewhere_hides_nothing_of_the_run_at_home() -> None:
    said: dict[str, Any] = {"company": "acme", "correlation": "r1"}
    asked = TrainingRequested(id="r1", time=1, **said, base_model="tiny")
    end = TrainingFailed(id="f", time=2, **said, run="r1", reason="too_long")
    half = TRAINING_RUNS.fold(TRAINING_RUNS.initial("acme/r1"), asked)
    whole = TRAINING_RUNS.fold(half, end)
    assert TRAINING_RUNS.merge is not None
    assert TRAINING_RUNS.merge(half, whole) == TRAINING_RUNS.merge(whole, half) == whole


@pytest.mark.parametrize("after_the_end", [False, True], ids=["waits", "ended"])
def test_a_second_wish_under_a_used_id_is_passed_over_by_name(after_the_end: bool) -> None:
    """An event that refuses it would be the end of the run that has the id; so the run's row says it."""
    said: dict[str, Any] = {"company": "acme", "correlation": "r1"}
    asked = TrainingRequested(id="r1", time=1, **said, base_model="tiny")
    end = [TrainingFailed(id="f", time=2, **said, run="r1", reason="too_long")] if after_the_end else []
    others = [structs.replace(asked, time=3, **field) for field in OTHERS]
    events = [asked, *end, structs.replace(asked, time=2), *others]
    row = reduce(TRAINING_RUNS.fold, events, TRAINING_RUNS.initial("acme/r1"))
    assert row.passed_over == len(OTHERS)
    assert structs.replace(row, passed_over=0) == reduce(
        TRAINING_RUNS.fold, [asked, *end], TRAINING_RUNS.initial("acme/r1")
    )


OTHERS: list[dict[str, Any]] = [
    {"role": "ops"},
    {"base_model": "large"},
    {"method": "qlora"},
    {"settings": '{"seed":1}'},
    {"ranges": (OffsetRange(topic="company-data", partition=0, start=0, stop=1),)},
]


def version_of(run: str, method: str = "lora", version: int = 1) -> AdapterReady:
    fields: dict[str, Any] = {"id": run, "company": "acme", "time": 2, "correlation": run, "adapter": "acme/default"}
    of_files = {"sha256": "f" * 64, "uri": "file:///x", "base_model": "tiny", "base_sha256": "0" * 64}
    return AdapterReady(
        **fields, **of_files, adapter_version=version, run=run, method=method, rank=2, alpha=2.0, manifest="none",
        ranges=(), seed=0, identity="{}", promoted=False,
    )  # fmt: skip


@pytest.mark.parametrize("times", [1, TRIES - 1], ids=["once", "until the last try"])
async def test_a_run_whose_version_was_taken_meanwhile_makes_the_next_one(office, monkeypatch, times):  # noqa: F811
    """Somebody publishes into the role while the papers go to a store that is slow."""
    await office.append(office.request("r1"))
    loop, put, taken = asyncio.get_running_loop(), office.store.put_papers, list[Event]()

    def slow(*told: Any) -> None:
        if len(taken) < times:
            taken.append(version_of(f"p{len(taken) + 1}", "brought", len(taken) + 1))
            asyncio.run_coroutine_threadsafe(office.append(taken[-1]), loop).result()
        put(*told)

    monkeypatch.setattr(office.store, "put_papers", slow)
    said = await office.until(office.trainer(), ended("r1"))
    (done,) = of(said, TrainingCompleted)
    rows = await View(office.log, office.names, LORA_ADAPTERS).catch_up()
    brought, own = rows["acme/default/1"], rows[f"acme/default/{times + 1}"]
    assert (brought.run, brought.sha256, brought.verdict) == ("p1", "f" * 64, "")
    assert (own.run, own.sha256) == ("r1", done.sha256) and own.verdict


async def test_a_worker_whose_store_takes_its_time_is_at_work(office, monkeypatch):  # noqa: F811
    """The child has ended, and nobody else says that the run gets on: its watch would end the worker."""
    monkeypatch.setattr(world, "BEAT_SECONDS", 0.01)
    await office.append(office.request("r1"))
    trainer = office.trainer()
    beats = dict[str, int]()
    for name in ("put", "put_manifest", "put_papers", "put_measures"):
        monkeypatch.setattr(office.store, name, slow_until_heard(getattr(office.store, name), trainer, beats))
    said = await office.until(trainer, ended("r1"))
    assert len(of(said, TrainingCompleted)) == 1
    assert beats.keys() == {"put", "put_manifest", "put_papers", "put_measures"} and min(beats.values()) >= 3


def slow_until_heard(plain: Callable, trainer: Any, beats: dict[str, int]) -> Callable:
    def put(*told: Any) -> Any:
        before, until = trainer.standing._beats, time.monotonic() + 20
        while trainer.standing._beats < before + 3 and time.monotonic() < until:
            time.sleep(0.01)
        beats[plain.__name__] = trainer.standing._beats - before
        return plain(*told)

    return put


async def test_a_disk_that_hangs_is_nobodys_work(monkeypatch):
    """It is beaten for as long as the requests of a store may take, and no longer."""
    monkeypatch.setattr(world, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(world, "FILES_SENT", 0)
    beats, hung = 0, threading.Event()

    def beat() -> None:
        nonlocal beats
        beats += 1

    storing = asyncio.create_task(world.stored(beat, world.SLOWEST // 60, hung.wait, 60))
    await asyncio.sleep(1)
    assert 5 <= beats <= 10 and not storing.done()
    hung.set()
    assert await storing is True


def test_a_verdict_is_of_its_own_run_whichever_comes_first():
    fields: dict[str, Any] = {"id": "e", "company": "acme", "time": 2, "correlation": "e", "adapter": "acme/default"}
    judged = AdapterJudged(**fields, adapter_version=1, run="a", promoted=True, reason="better", figures="{}")
    ready = version_of("b")
    for order in ((judged, ready), (ready, judged)):
        row = reduce(LORA_ADAPTERS.fold, order, LORA_ADAPTERS.initial("acme/default/1"))
        assert (row.run, row.verdict, row.judged_at) == ("b", "", 0)
    own = structs.replace(ready, run="a")
    for order in ((judged, own), (own, judged)):
        assert reduce(LORA_ADAPTERS.fold, order, LORA_ADAPTERS.initial("acme/default/1")).verdict == "better"
