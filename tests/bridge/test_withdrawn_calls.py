"""A call whose job was taken back is not made, and not tried again; one that is under way comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schemas.jobs import JobRequested, JobWithdrawn
from streams.bridge import open_calls
from streams.bridge.look import Look
from tests.bridge.test_tool_bridge import NOW, bridge, call, drain, events, make_bridge, short_pauses, tool

pytestmark = pytest.mark.usefixtures("topics")
__all__ = ("bridge", "short_pauses")  # fixtures


def taken_back(job: str = "j1", company: str = "acme") -> JobWithdrawn:
    return JobWithdrawn(id=f"w-{job}", company=company, time=NOW, correlation="r1", job=job)


async def reasons(log: Any, names: Any) -> dict[str, str]:
    return {event.call: event.reason.partition(":")[0] for event in await events(log, names, "tool-result")}


async def test_a_call_of_a_withdrawn_job_stays_here_and_is_answered_once(
    log, names, secrets, bridge, send, api
) -> None:
    """Whichever came first: the fold may have proposed the call before it read of the withdrawal."""
    await send(tool(f"{api.base}/ok", secrets), taken_back(), call(1), call(2, job="j2"), taken_back("j2"))
    await send(call(3, job="j3"), taken_back("j3", company="globex"))
    await drain(bridge, log, names)
    assert await reasons(log, names) == {"c1": "withdrawn", "c2": "withdrawn", "c3": ""}
    await drain(make_bridge(log, names, secrets), log, names)
    assert (len(api.requests), len(await events(log, names, "tool-result"))) == (1, 3)


async def test_a_call_that_is_tried_again_ends_when_its_job_is_taken_back(log, names, secrets, send, api) -> None:
    await send(tool(f"{api.base}/broken", secrets), call(1), call(2, job="j2"))
    bridge = make_bridge(log, names, secrets, patience=5)
    draining = asyncio.create_task(drain(bridge, log, names))
    await api.arrived.wait()
    await send(taken_back())
    async with asyncio.timeout(4):
        while "c1" not in (found := await reasons(log, names)):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)
    assert found == {"c1": "withdrawn"}
    await send(taken_back("j2"))
    await draining
    assert await reasons(log, names) == {"c1": "withdrawn", "c2": "withdrawn"}


async def test_a_call_that_waits_for_its_turn_is_never_made(log, names, secrets, send, api, monkeypatch) -> None:
    monkeypatch.setattr(open_calls, "COMPANY_BEGUN", 1)
    await send(tool(f"{api.base}/slow", secrets), call(1))
    bridge = make_bridge(log, names, secrets)
    draining = asyncio.create_task(drain(bridge, log, names))
    await api.arrived.wait()
    await send(waits := call(2, job="j2"), taken_back("j2"))
    async with asyncio.timeout(30):
        while not bridge._withdrawn.of(waits):  # noqa: ASYNC110  nobody tells that it is heard
            await asyncio.sleep(0.05)
    api.gate.set()
    await draining
    assert await reasons(log, names) == {"c1": "", "c2": "withdrawn"}
    assert len(api.requests) == 1


async def test_what_is_under_way_comes_back_and_is_kept(log, names, secrets, bridge, send, api) -> None:
    await send(tool(f"{api.base}/slow", secrets), call(1))
    draining = asyncio.create_task(drain(bridge, log, names))
    await api.arrived.wait()
    await send(taken_back())
    await asyncio.sleep(0.1)
    api.gate.set()
    await draining
    (answer,) = await events(log, names, "tool-result")
    assert (answer.ok, answer.body) == (True, '{"done": {"order": "A1"}}')


def test_a_look_misses_none_in_whatever_form_it_is_written() -> None:
    from schemas.codec.codec import encode

    look, other = Look(JobWithdrawn), JobRequested(id="r", company="acme", time=1, correlation="r", job="j", task="t")
    assert look.may_be(encode(taken_back())) and not look.may_be(encode(other))
    assert look.may_be(b'{"type":"job.withdrawn"}') and look.may_be(b'{"type":"job.\\u0077ithdrawn"}')
    assert look.may_be(b"\0\0\0\0\1anything framed") and not look.may_be(b'{"type":"job.failed"}')
    assert not look.may_be(None)
