"""However much others wrote: whoever follows the tools yields, shows that he gets on, and says he is late."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from schemas.topics import TopicNames
from streams.bridge import tools as followed
from streams.bridge.tools import Tools
from streams.errors import ToolsBehind
from streams.fairness import slices
from streams.health.standing import Standing
from streams.health.watch import begun, seen
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing
from streams.log.tail import Tail
from tests.bridge.test_tools_bound import tool

pytestmark = pytest.mark.usefixtures("topics")


def plain(names: TopicNames, **fields: Any) -> Outgoing:
    value = json.dumps({"company": "mallory", **fields}).encode()
    return Outgoing(names.wire("company-data"), b"mallory", value)


async def test_a_long_log_leaves_the_loop_to_others_and_shows_that_it_gets_on(
    log: EventLog, names: TopicNames, monkeypatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.001)
    await log.append([plain(names, type="text.ingested", text="x") for _ in range(500)])
    standing, turns, taken = Standing(), 0, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(_: object) -> None:
        nonlocal taken
        taken += 1
        time.sleep(0.0005)

    tail = Tail(log, names.wire("company-data"), slow, standing.beat)
    other = asyncio.create_task(others())
    state = seen(begun(0.0), standing.sight(), 0.0)
    with standing.restoring():
        await tail.catch_up()
        state = seen(state, standing.sight(), 1.0)
        standing.beat()
        state = seen(state, standing.sight(), 90.0)
        assert state.phase == "restoring" and state.moved == 90.0
    assert standing.sight().phase == "joining" and standing.sight().beats > 50
    other.cancel()
    assert turns > 50 and taken == 500


async def test_whoever_is_cancelled_goes_on_where_he_was(log: EventLog, names: TopicNames, monkeypatch) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    await log.append([plain(names, type="text.ingested", text="x") for _ in range(500)])
    taken: list[object] = []
    tail = Tail(log, names.wire("company-data"), lambda record: taken.append(record.origin))
    reading = asyncio.create_task(tail.catch_up())
    while len(taken) < 50:  # noqa: ASYNC110
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert len(taken) < 500
    await tail.catch_up()
    assert len(taken) == len(set(taken)) == 500


async def test_a_request_does_not_wait_for_a_long_log_and_the_reading_goes_on(
    log: EventLog, names: TopicNames, monkeypatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.001)
    await log.append([plain(names, type="tool.registered") for _ in range(500)])
    await log.append([to_outgoing(tool("t"), names)])
    tools = Tools(log, names)
    take = tools._tail._take
    monkeypatch.setattr(tools._tail, "_take", lambda record: (time.sleep(0.002), take(record)))
    with pytest.raises(ToolsBehind, match="Send it again"):
        await tools.catch_up_within(0.1)
    await tools.catch_up_within(30)
    assert set(tools.of("acme")) == {"t"}
    await log.append([to_outgoing(tool("u"), names)])
    await tools.catch_up_within(30)
    assert set(tools.of("acme")) == {"t", "u"}
    await tools.close()


async def test_json_that_is_no_tool_is_not_decoded_and_every_spelling_of_one_is(
    log: EventLog, names: TopicNames, monkeypatch
) -> None:
    looked: list[bytes | None] = []
    decode = followed.decode
    monkeypatch.setattr(followed, "decode", lambda value, *rest: (looked.append(value), decode(value, *rest))[1])
    wanted = {"name": "a", "parameters": "{}", "endpoint": "https://x.example/", "auth": {"kind": "none"}}
    wanted |= {"description": "", "type": "tool.registered", "id": "i", "company": "acme"}
    texts = [plain(names, type="text.ingested", text="x") for _ in range(50)]
    spelt = json.dumps(wanted | {"name": "b"}).replace("tool.reg", "t\\u006fol.re\\u0067")
    records = [Outgoing(names.wire("company-data"), b"acme", each.encode()) for each in (json.dumps(wanted), spelt)]
    await log.append([*texts, *records])
    tools = Tools(log, names)
    await tools.catch_up()
    assert set(tools.of("acme")) == {"a", "b"}
    assert len(looked) == 2
