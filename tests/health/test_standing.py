"""Bridge and serving worker under watch: what takes long is no stall, what stands is named. On a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpu_workers.serve import worker as inference
from gpu_workers.serve.port import Failure, OnSnippet, Outcome, Question
from gpu_workers.serve.worker import InferenceWorker
from schemas.envelope import Event
from schemas.inference import InferenceRequested
from schemas.tools import ToolCallProposed
from schemas.topics import TOPICS, TopicNames
from streams.bridge.secrets import FileSecrets
from streams.bridge.tool_bridge import ToolBridge
from streams.health.standing import Standing
from streams.health.watchman import EX_SOFTWARE
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Position, TopicSpec
from tests.support.engine import FakeEngine
from tests.support.watching import Watching, breathe

NAMES = TopicNames()
HOUR = 3600


class FakeStuckLog(MemoryLog):
    """A log that takes answers of one topic in and never acknowledges them."""

    stuck_on: str | None = None

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        if any(record.topic == self.stuck_on for record in records):
            await asyncio.Event().wait()
        return await super().append(records)


@pytest.fixture
async def log() -> FakeStuckLog:
    log = FakeStuckLog()
    await log.create([TopicSpec(topic.name, topic.partitions) for topic in TOPICS])
    return log


async def say(log: MemoryLog, *events: Event) -> None:
    await log.append([to_outgoing(event, NAMES) for event in events])


def call(n: int) -> ToolCallProposed:
    """Of a tool that nobody has: answered without leaving the house."""
    given: dict[str, Any] = {"id": f"c{n}", "company": "acme", "time": 1, "correlation": "r"}
    return ToolCallProposed(**given, call=f"c{n}", job="j", tool="none", arguments="{}")


@asynccontextmanager
async def at_work(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    await breathe()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make_bridge(log: MemoryLog, tmp_path: Path) -> ToolBridge:
    return ToolBridge(log, NAMES, FileSecrets(tmp_path), lambda: 1)


async def test_a_bridge_that_works_is_healthy_also_after_a_restart(log: FakeStuckLog, tmp_path: Path) -> None:
    await say(log, call(1))
    for _ in range(2):
        bridge, joined = make_bridge(log, tmp_path), asyncio.Event()
        async with at_work(bridge.run(asyncio.Event(), joined.set)):
            await joined.wait()
            watching = Watching(bridge.standing.sight, log)
            await watching.until(HOUR)
            assert watching.stalled() is None
            assert bridge.standing.sight().phase == "working"
    assert bridge.calls == 0, "the second found the answer of the first"


async def test_a_bridge_whose_answer_is_never_acknowledged_is_named_and_ends(log: FakeStuckLog, tmp_path: Path) -> None:
    log.stuck_on = "tool-result"
    bridge = make_bridge(log, tmp_path)
    async with at_work(bridge.run(asyncio.Event())):
        watching = Watching(bridge.standing.sight, log)
        await watching.until(5)
        await say(log, call(1))
        await watching.until(35, breathe)
        assert "stands at 0 of 1" in str(watching.stalled())
        await watching.until(95, breathe)
    assert watching.codes[:1] == [EX_SOFTWARE]


async def test_an_answer_that_takes_long_is_no_stall_while_the_engine_says_tokens(log: FakeStuckLog) -> None:
    engine = FakeEngine(never=lambda _: True)
    worker = InferenceWorker(log, NAMES, engine, lambda: 1, at_once=1)  # type: ignore[arg-type]

    async def another() -> None:
        engine.tokens += 1
        worker._beat()
        await breathe()

    await say(log, InferenceRequested(id="q", company="acme", time=1, correlation="q", messages=()))
    async with at_work(worker.run(lambda: None)):
        await breathe()
        watching = Watching(worker.standing.sight, log)
        await watching.until(HOUR, another)
        assert watching.stalled() is None
        await watching.until(HOUR + 30, breathe)
        assert "inference-request" in str(watching.stalled())


class FakeLimit(FakeEngine):
    """The fake model, with no tokens left for anybody."""

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        self.asked.append(question)
        return Failure(id=question.id, reason=self.reason, detail="of the test", again=True, wait=3.0)

    reason = "too_fast"


@pytest.mark.parametrize(("reason", "stalls"), [("too_fast", False), ("queue_full", True)])
async def test_waiting_for_tokens_is_no_stall_and_an_engine_that_stays_full_is_one(
    reason: str, stalls: bool, log: FakeStuckLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "FULL_SECONDS", 0.01)
    engine = FakeLimit()
    engine.reason = reason
    worker = InferenceWorker(log, NAMES, engine, lambda: 1, at_once=1)  # type: ignore[arg-type]

    async def another() -> None:
        worker._beat()
        await breathe()

    await say(log, InferenceRequested(id="q", company="acme", time=1, correlation="q", messages=()))
    async with at_work(worker.run(lambda: None)):
        while not engine.asked:
            await breathe()
        await breathe()
        watching = Watching(worker.standing.sight, log)
        await watching.until(90, another)
        assert (watching.stalled() is not None) == stalls


async def test_what_is_given_out_anew_stands_where_the_group_has_committed(log: FakeStuckLog) -> None:
    """The other member got on meanwhile: what we knew from before would look like a stall."""
    await say(log, *(call(n) for n in range(40)))
    topic = "tool-call"
    async with log.subscribe("g", [topic]) as ours:
        standing = Standing()
        await ours.poll(0)
        await standing.found(ours)
        async with log.subscribe("g", [topic]) as theirs:
            ends = {(topic, partition): end for partition, end in (await log.ends(topic)).items()}
            await theirs.poll(0)
            await theirs.commit({tp: ends[tp] for tp in theirs.assignment()})
            done = theirs.assignment()
        await ours.poll(0)
        assert {standing.sight().positions[tp] for tp in done} == {0}
        await standing.found(ours)
        assert all(standing.sight().positions[tp] == ends[tp] for tp in done)
