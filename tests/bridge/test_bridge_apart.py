"""What one company's API does, or does not, holds up nobody else; and a tool that is away for a while is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from schemas.company import ToolAuth, ToolRevoked
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TopicNames
from streams.bridge import open_calls, tool_bridge, tool_caller
from streams.bridge.said_of_calls import SaidOfCalls
from streams.bridge.secrets import FileSecrets
from streams.bridge.tool_bridge import ToolBridge
from streams.bridge.tool_caller import key_of
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import EventLog, Record
from tests.bridge.test_tool_bridge import call, events, tool

pytestmark = pytest.mark.usefixtures("topics")
SECONDS = 40


def make_bridge(log: EventLog, names: TopicNames, secrets: FileSecrets, patience: float) -> ToolBridge:
    return ToolBridge(log, names, secrets, lambda: 1, private=True, patience=patience)


@asynccontextmanager
async def at_work(*bridges: ToolBridge) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(bridge.run(stop)) for bridge in bridges]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answers(log: EventLog, names: TopicNames, company: str, count: int) -> list[Any]:
    async with asyncio.timeout(SECONDS):
        while True:
            found = [event for event in await events(log, names, "tool-result") if event.company == company]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)


async def test_a_dead_api_holds_up_nobody_else(log, names, secrets, send, api) -> None:
    dead = tool(f"{api.base}/slow", secrets)
    well = tool(f"{api.base}/ok", secrets, company="globex", auth=ToolAuth(kind="none"))
    bridge = make_bridge(log, names, secrets, patience=600)
    async with at_work(bridge):
        await send(dead, well, *(call(n, job=f"j{n}") for n in range(200)))
        await api.arrived.wait()
        begun = time.monotonic()
        await send(*(call(n, company="globex", job=f"j{n}") for n in range(20)))
        assert all(answer.ok for answer in await answers(log, names, "globex", 20))
        assert time.monotonic() - begun < 15
        under_way = [request for request in api.requests if request["path"] == "/slow"]
        assert len(under_way) == tool_caller.ENDPOINT_CALLS
        before = bridge.standing.sight().beats
        await asyncio.sleep(1.5)
        assert bridge.standing.sight().beats > before, "it waits, and is seen to be well"
    committed = await log.committed(f"{names.prefix}rillfold-tool-bridge", names.wire("tool-call"))
    assert sum(committed.values()) < 220, "open calls hold their offsets"
    api.gate.set()
    async with at_work(make_bridge(log, names, secrets, patience=600)):
        await answers(log, names, "acme", 200)
    assert len(api.effects) == 220
    assert len(await events(log, names, "tool-result")) == 220, "none was answered twice"


async def test_another_endpoint_of_the_same_company_goes_on(log, names, secrets, send, api) -> None:
    dead = tool(f"{api.base}/slow", secrets)
    well = tool(f"{api.base}/ok", secrets, name="ping", parameters="{}")
    async with at_work(make_bridge(log, names, secrets, patience=600)):
        await send(dead, well, *(call(n) for n in range(50)))
        await api.arrived.wait()
        await send(call(100, tool="ping", arguments="{}"))
        (answer,) = await answers(log, names, "acme", 1)
    assert answer.call == "c100"


async def test_a_tool_that_starts_anew_is_waited_for(log, names, secrets, send, unused_tcp_port) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Idempotency-Key"])
        return web.json_response({})

    application = web.Application()
    application.router.add_post("/", answer)
    async with at_work(make_bridge(log, names, secrets, patience=60)):
        await send(tool(f"http://127.0.0.1:{unused_tcp_port}/", secrets), call())
        await asyncio.sleep(2)
        assert await events(log, names, "tool-result") == []
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        (returned,) = await answers(log, names, "acme", 1)
        await runner.cleanup()
    assert returned.ok
    assert seen == [key_of("acme", "c1")]


async def test_patience_ends_and_so_does_the_line(log, names, secrets, send, unused_tcp_port) -> None:
    begun = time.monotonic()
    async with at_work(make_bridge(log, names, secrets, patience=1)):
        await send(tool(f"http://127.0.0.1:{unused_tcp_port}/", secrets), *(call(n) for n in range(30)))
        reasons = {answer.reason.partition(":")[0] for answer in await answers(log, names, "acme", 30)}
    assert reasons == {"unreachable", "busy"}
    assert time.monotonic() - begun < 20, "a line before a dead door is as patient as one call"


async def test_a_revoked_tool_is_not_tried_again(log, names, secrets, send, api) -> None:
    async with at_work(make_bridge(log, names, secrets, patience=60)):
        await send(tool(f"{api.base}/broken", secrets), call())
        await api.arrived.wait()
        await send(ToolRevoked(id="t2", company="acme", time=1, correlation="t2", name="refund"))
        reasons = {answer.reason.partition(":")[0] for answer in await answers(log, names, "acme", 1)}
    assert reasons == {"denied"}


async def test_a_tool_that_is_revoked_while_calls_wait_is_not_called(log, names, secrets, send, api) -> None:
    bridge = make_bridge(log, names, secrets, patience=60)
    async with at_work(bridge):
        await send(tool(f"{api.base}/slow", secrets), *(call(n) for n in range(12)))
        await until(lambda: len(api.requests) == tool_caller.ENDPOINT_CALLS)
        await send(ToolRevoked(id="t2", company="acme", time=1, correlation="t2", name="refund"))
        await until(lambda: bridge._tools.find("acme", "refund") is None)
        api.gate.set()
        returned = await answers(log, names, "acme", 12)
    assert sum(answer.ok for answer in returned) == tool_caller.ENDPOINT_CALLS == len(api.requests)


async def test_a_bridge_that_is_told_to_stop_leaves_open_calls_to_the_next(
    log, names, secrets, send, api, monkeypatch
) -> None:
    monkeypatch.setattr(tool_bridge, "STOP_SECONDS", 0.2)
    stop = asyncio.Event()
    running = asyncio.create_task(make_bridge(log, names, secrets, patience=60).run(stop))
    await send(tool(f"{api.base}/slow", secrets), call())
    await api.arrived.wait()
    stop.set()
    async with asyncio.timeout(SECONDS):
        await running
    assert await events(log, names, "tool-result") == []
    api.gate.set()
    async with at_work(make_bridge(log, names, secrets, patience=60)):
        (answer,) = await answers(log, names, "acme", 1)
    assert answer.ok
    assert (len(api.requests), list(api.effects)) == (2, [key_of("acme", "c1")])


async def test_calls_move_with_their_partitions(log, names, secrets, send, api) -> None:
    first, second = (make_bridge(log, names, secrets, patience=60) for _ in range(2))
    async with at_work(first):
        await send(tool(f"{api.base}/slow", secrets), *(call(n, job=f"j{n}", tool="refund") for n in range(4)))
        await until(lambda: len(api.requests) == 4)
        async with at_work(second):
            await until(lambda: len(second._open) > 0 and len(first._open) + len(second._open) == 4)
            api.gate.set()
            returned = await answers(log, names, "acme", 4)
    assert sorted(answer.call for answer in returned) == ["c0", "c1", "c2", "c3"]
    assert set(api.effects) == {key_of("acme", f"c{n}") for n in range(4)}


def test_two_companies_never_share_a_key() -> None:
    keys = {key_of("acme", "c1"), key_of("globex", "c1"), key_of("acme", "c2"), key_of("a", "b/c"), key_of("a/b", "c")}
    assert len(keys) == 5
    assert key_of("acme", "c1\r\nX-Evil: 1").isalnum()
    assert key_of("acme", "c1") == "403ca7506b9402360077b05c3ad9599fd29e8d2a81977ccbdf303e825a9f556a", (
        "stored logs and running tools depend on it"
    )


async def test_a_backlog_of_one_company_is_answered_and_not_refused(
    log, names, secrets, send, api, monkeypatch
) -> None:
    monkeypatch.setattr(open_calls, "COMPANY_BEGUN", 10)
    await send(tool(f"{api.base}/ok", secrets), *(call(n, job=f"j{n}") for n in range(100)))
    async with at_work(make_bridge(log, names, secrets, patience=60)):
        returned = await answers(log, names, "acme", 100)
    assert [answer.reason for answer in returned if not answer.ok] == []
    assert len(api.effects) == len(api.requests) == 100


def answered(n: int, company: str = "acme", time: int = 1) -> ToolReturned:
    about = {"id": f"a-{company}-{n}", "company": company, "time": time, "correlation": "r"}
    return ToolReturned(**about, call=f"c{n}", job="j", tool="t", ok=True)


def proposed(n: int, company: str = "acme", time: int = 1) -> tuple[Record, ToolCallProposed]:
    """A call, and where it stands."""
    about = {"id": f"c{n}", "company": company, "time": time, "correlation": "r"}
    call = ToolCallProposed(**about, call=f"c{n}", job="j", tool="t", arguments="{}")
    return Record("tool-call", partition_of(f"{company}/j".encode(), 4), n, 1 << 42, None, None), call


async def test_a_flood_of_answers_does_not_make_others_forgotten_and_the_log_knows_its_own(log, names, send) -> None:
    await send(answered(1, "globex"), *(answered(n) for n in range(50)))
    known = SaidOfCalls(log, names, remembered=10)
    calls = [proposed(1, "globex"), proposed(2, "globex"), *(proposed(n) for n in range(60))]
    wanted = {("globex", "c1"), *(("acme", f"c{n}") for n in range(50))}
    assert await known.among(calls) == wanted
    assert ("globex", "c1") in known
    assert ("acme", "c1") not in known, "it had no room"
    assert await known.among(calls[::-1]) == wanted


async def test_an_answer_is_found_however_long_ago_its_call_was_made(log, names, send) -> None:
    """Of a repeat, written a year later, or of offsets that have expired: the call says its own time."""
    year = 365 * 24 * 3600 * 1000
    old, now = 1_700_000_000_000, 1_700_000_000_000 + year
    records = [to_outgoing(answered(n), names)._replace(timestamp=time) for n, time in ((1, old), (2, now))]
    await log.append(records)
    known = SaidOfCalls(log, names)
    (late, call) = proposed(2, time=now * 1000)
    assert await known.among([(late._replace(timestamp=now), call)]) == {("acme", "c2")}
    assert ("acme", "c1") not in known
    (repeat, call) = proposed(1, time=old * 1000)
    assert await known.among([(repeat._replace(timestamp=now), call)]) == {("acme", "c1")}
