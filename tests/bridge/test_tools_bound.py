"""A company's tools in memory: replaced, revoked, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from processors import gate
from schemas.company import ToolAuth, ToolRegistered, ToolRevoked
from schemas.topics import TopicNames
from streams.bridge import tools as followed
from streams.bridge.tools import Tools
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

pytestmark = pytest.mark.usefixtures("topics")


def tool(name: str, **changes: Any) -> ToolRegistered:
    fields = {"id": name, "company": "acme", "time": 1, "correlation": name, "name": name, "description": ""}
    more = {"parameters": "{}", "endpoint": "https://x.example/", "auth": ToolAuth(kind="none")}
    return ToolRegistered(**(fields | more | changes))


async def test_what_is_kept_fits_a_job(log: EventLog, names: TopicNames) -> None:
    await log.append([to_outgoing(tool(f"t{n}", description="x" * 2_000), names) for n in range(300)])
    tools = Tools(log, names)
    await tools.catch_up()
    assert 100 < len(tools.of("acme")) < 125
    assert 200_000 < len(gate.snapshot(tools.offered("acme"))) < 256 << 10


async def test_one_company_has_so_many_and_no_more(log: EventLog, names: TopicNames, monkeypatch) -> None:
    monkeypatch.setattr(followed, "TOOLS", 3)
    monkeypatch.setattr(followed, "TOOLS_BYTES", 1_000)
    told = [*(tool(f"t{n}") for n in range(5)), tool("t1", description="anew"), tool("t2", description="x" * 2_000)]
    gone = ToolRevoked(id="r", company="acme", time=1, correlation="r", name="t0")
    await log.append([to_outgoing(event, names) for event in (*told, gone, tool("late"), tool("a", company="globex"))])
    tools = Tools(log, names)
    await tools.catch_up()
    assert set(tools.of("acme")) == {"t1", "late"}
    assert tools.of("acme")["t1"][0].description == "anew"
    assert set(tools.of("globex")) == {"a"}
    assert tools.find("acme", "t0") is None
    assert tools.find("nobody", "t0") is None
