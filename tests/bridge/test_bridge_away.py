"""A bridge that sleeps longer than its group waits for it: others answer meanwhile, and it says nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from schemas.tools import ToolCallProposed
from schemas.topics import TOPICS, TopicNames
from streams.bridge.endpoint import ToolReply
from streams.bridge.said_of_calls import SaidOfCalls
from streams.bridge.secrets import FileSecrets
from streams.bridge.tool_bridge import GROUP, ToolBridge
from streams.log.memory import MemoryLog, MemorySubscription
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.bridge.test_tool_bridge import call, events

NAMES = TopicNames()
Make = Callable[..., ToolBridge]


@pytest.fixture
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.create([TopicSpec(topic.name, 1) for topic in TOPICS])
    await log.append([to_outgoing(call(), NAMES)])
    return log


@pytest.fixture
def make(log: MemoryLog, tmp_path: Path) -> Make:
    def make(name: str, gate: asyncio.Event | None = None) -> ToolBridge:
        """Its tool's answer carries the bridge's name, and comes when the gate is open."""

        async def answer(_: ToolCallProposed) -> ToolReply:
            if gate:
                await gate.wait()
            return ToolReply(True, 200, f"by {name}", "")

        bridge = ToolBridge(log, NAMES, FileSecrets(tmp_path), lambda: 1)
        bridge._open._answer = answer
        return bridge

    return make


async def turn(bridge: ToolBridge, group: MemorySubscription) -> None:
    polling = bridge._polling(group)
    await asyncio.wait([polling])
    assert await bridge._step(group, polling)


@asynccontextmanager
async def asleep(log: MemoryLog, group: MemorySubscription, other: ToolBridge) -> AsyncIterator[None]:
    """Out of the group; the other takes its work over, comes to its end, and leaves. Then it is given all back."""
    members = log._groups[GROUP]
    members.leave(group)
    async with log.subscribe(GROUP, ["tool-call"]) as others:
        for _ in range(2):
            await turn(other, others)
    assert dict(await log.committed(GROUP, "tool-call")) == {0: 1}
    yield
    members.join(group)


async def test_what_was_answered_while_it_was_away_is_neither_called_nor_answered_again(log, make) -> None:
    slow = make("first", asyncio.Event())
    async with log.subscribe(GROUP, ["tool-call"]) as group:
        await turn(slow, group)
        (work,) = slow._open._works.values()
        async with asleep(log, group, make("second")):
            assert not work.task.done()
        await turn(slow, group)
        assert work.task.cancelled(), "its tries are over"
        assert not slow._open
    assert [answer.body for answer in await events(log, NAMES, "tool-result")] == ["by second"]


async def test_it_looks_before_it_answers_although_it_was_not_told_yet_that_it_was_away(log, make) -> None:
    gate = asyncio.Event()
    slow = make("first", gate)
    async with log.subscribe(GROUP, ["tool-call"]) as group:
        await turn(slow, group)
        async with asleep(log, group, make("second")):
            gate.set()
            await turn(slow, group)
        assert not slow._open
        assert slow.calls == 0
    assert [answer.body for answer in await events(log, NAMES, "tool-result")] == ["by second"]


async def test_what_nobody_answered_while_it_was_away_is_still_its_own(log, make) -> None:
    gate = asyncio.Event()
    slow = make("first", gate)
    async with log.subscribe(GROUP, ["tool-call"]) as group:
        await turn(slow, group)
        log._groups[GROUP].leave(group)
        log._groups[GROUP].join(group)
        gate.set()
        await turn(slow, group)
        await turn(slow, group)
    assert [answer.body for answer in await events(log, NAMES, "tool-result")] == ["by first"]
    assert dict(await log.committed(GROUP, "tool-call")) == {0: 1}


async def test_its_own_answers_are_known_without_being_read(log, make, monkeypatch) -> None:
    bridge = make("first")
    async with log.subscribe(GROUP, ["tool-call"]) as group:
        await turn(bridge, group)
        await turn(bridge, group)
        monkeypatch.setattr(log, "read", None)
        await log.append([to_outgoing(call(), NAMES)])
        await turn(bridge, group)
        await turn(bridge, group)
        monkeypatch.undo()
    assert [answer.body for answer in await events(log, NAMES, "tool-result")] == ["by first"]


async def test_a_group_whose_offsets_have_expired_calls_nothing_again_however_much_was_answered(log, make) -> None:
    await log.append([to_outgoing(call(n, job=f"j{n}"), NAMES) for n in range(2, 150)])
    for name in ("first", "second"):
        bridge = make(name)
        bridge._answered = SaidOfCalls(log, NAMES, remembered=5)
        async with log.subscribe(GROUP, ["tool-call"]) as group:
            while (await log.committed(GROUP, "tool-call")).get(0, 0) < 149:
                await turn(bridge, group)
        log._groups.clear()
    assert [answer.body for answer in await events(log, NAMES, "tool-result")] == ["by first"] * 149
