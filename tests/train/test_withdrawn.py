"""A wish taken back, at any moment: what waits is refused, what trains is stopped, what stands stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gpu_workers.inbox.inbox import Inbox
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingFailed, TrainingWithdrawn
from streams.log.memory import MemoryLog
from tests.support.made import made_once

from .test_hostile_requests import declines, reasons
from .test_trainer import ENDS, Crash, CrashingLog, Office, ended, of, office  # noqa: F401


def withdrawn(run: str, company: str = "acme") -> TrainingWithdrawn:
    return TrainingWithdrawn(id=f"w-{run}", company=company, time=2, correlation=run, run=run, reason="a slip")


@pytest.fixture
async def quiet(tmp_path, tiny_base) -> Office:
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


class Endless:
    """A child that trains until it is killed."""

    def __init__(self) -> None:
        self.begun, self.killed = asyncio.Event(), asyncio.Event()

    async def __call__(self, spec, on_report):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.killed.set()


def and_then(trains: Endless, after: Callable) -> Callable:
    """The first run is endless; those after it are done as told."""

    async def train(spec, on_report):
        return await (after if trains.begun.is_set() else trains)(spec, on_report)

    return train


async def test_a_run_that_trains_is_killed_and_one_that_waits_is_refused_and_the_next_goes_on(office) -> None:  # noqa: F811
    endless = Endless()
    await office.append(office.request("trains"), office.request("waits"), office.request("wanted"))

    async def takes_back() -> None:
        await endless.begun.wait()
        await office.append(withdrawn("waits"))
        await office.watch(ended("waits"))
        assert not endless.killed.is_set(), "and nothing else is stopped by it"
        await office.append(withdrawn("trains"))

    changes_his_mind = asyncio.create_task(takes_back())
    said = await office.until(office.trainer(train=and_then(endless, made_once)), ended("trains", "waits", "wanted"))
    await changes_his_mind
    assert endless.killed.is_set()
    outcomes = {event.run: (event.type, getattr(event, "reason", "")) for event in said if isinstance(event, ENDS)}
    assert outcomes == {
        "trains": ("training.failed", "withdrawn"),
        "waits": ("training.refused", "withdrawn"),
        "wanted": ("training.completed", ""),
    }
    assert [event.run for event in await office.ready()] == ["wanted"]
    assert not [*(office.tmp_path / "scratch-one").iterdir()]


async def test_what_is_taken_back_while_no_worker_lives_is_known_to_the_next(quiet) -> None:
    await quiet.append(quiet.request("began"), quiet.request("never"))
    with pytest.raises(Crash):  # after training.accepted
        await quiet.until(quiet.trainer(CrashingLog(quiet.log, 1, after=True)), lambda _said: False)
    await quiet.append(withdrawn("began"), withdrawn("never"))
    said = await quiet.until(quiet.trainer(name="two", train=declines), ended("began", "never"))
    assert reasons(said) == {("acme", "began"): "withdrawn", ("acme", "never"): "withdrawn"}
    assert [event.run for event in of(said, TrainingFailed)] == ["began"]
    assert [event.worker for event in of(said, TrainingAccepted)] == ["one", "two"]


async def test_a_full_inbox_hears_it_too(quiet) -> None:
    endless = Endless()
    await quiet.append(*(quiet.request(f"r{n}") for n in range(4)))

    async def takes_back() -> None:
        await endless.begun.wait()
        await quiet.append(withdrawn("r3"), withdrawn("r0"))

    changes_his_mind = asyncio.create_task(takes_back())
    trainer = quiet.trainer(train=and_then(endless, declines), inbox=Inbox(most=2))
    said = await quiet.until(trainer, ended("r0", "r1", "r2", "r3"))
    await changes_his_mind
    assert reasons(said) == {
        ("acme", "r0"): "withdrawn",
        ("acme", "r1"): "declined",
        ("acme", "r2"): "declined",
        ("acme", "r3"): "withdrawn",
    }


async def test_nothing_happens_to_what_was_not_asked_for_yet_nor_to_anothers_run_nor_to_an_unknown_one(quiet) -> None:
    await quiet.append(withdrawn("r1"), withdrawn("r1", "globex"), withdrawn("nobody's"), quiet.request("r1"))
    await quiet.append(withdrawn("r1", "globex"))
    said = await quiet.until(quiet.trainer(train=declines), ended("r1"))
    assert reasons(said) == {("acme", "r1"): "declined"}


async def test_what_stands_stays_and_what_is_published_is_not_stopped(quiet) -> None:
    """Taken back between the end of the training and training.completed."""
    await quiet.append(quiet.request("r1"))
    put, under_way, go_on = quiet.store.put, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(*arguments):
        loop.call_soon_threadsafe(under_way.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return put(*arguments)

    quiet.store.put = slowly
    trainer = quiet.trainer()

    async def takes_back() -> None:
        await under_way.wait()
        await quiet.append(withdrawn("r1"))
        while not trainer._handling.withdrawn():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        go_on.set()
        await quiet.watch(ended("r1"))
        await quiet.append(withdrawn("r1"), quiet.request("r2", role="other"))

    changes_his_mind = asyncio.create_task(takes_back())
    said = await quiet.until(trainer, ended("r1", "r2"))
    await changes_his_mind
    assert [event.run for event in of(said, TrainingCompleted)] == ["r1", "r2"]
    assert len(outcomes(said)) == 2


def outcomes(said: list[Event]) -> list[Event]:
    return [event for event in said if isinstance(event, ENDS)]
