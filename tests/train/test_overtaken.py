"""A worker that lost its run without hearing of it: whatever comes of the run there, nothing is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from gpu_workers.train import worker
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingCompleted, TrainingWithdrawn
from streams.log.memory import MemoryLog
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
