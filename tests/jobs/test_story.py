"""The story of a job is one tree: every event has its cause in it, whoever said it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from processors.saga import ACTING_JOBS
from rillfold.cli.events.trace import tree
from rillfold.testing.driver import Consumer, Driver
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceRequested
from schemas.tools import ToolCallProposed, ToolReturned
from streams.history.story import StoryUnknown, story
from streams.log.port import EventLog

CALL = '<tool_call>{"name": "refund", "arguments": {}}</tool_call>'


def world(event: Event, now: int) -> tuple[Event, ...]:
    match event:
        case InferenceRequested():
            text = (
                "Done [ok]."
                if len(event.messages) > 1
                else '<tool_call>{"name": "refund", "arguments": {}}</tool_call>'
            )
            fields = {"request": event.id, "job": event.job, "text": text, "finish_reason": "stop", "model": "m"}
            return (InferenceCompleted(**caused_by(event, 0, now), **fields, prompt_tokens=1, completion_tokens=1),)
        case ToolCallProposed():
            fields = {"call": event.call, "job": event.job, "tool": event.tool, "ok": True, "status": 200}
            return (ToolReturned(**caused_by(event, 0, now), **fields),)
    return ()


@pytest.fixture
def topics() -> tuple[str, ...]:
    return ("inference-request", "tool-call")


async def test_one_tree_from_the_request_to_the_end(log: EventLog, names, topics) -> None:
    async with Driver(log, [ACTING_JOBS], consumers=[Consumer("world", topics, world)], names=names) as driver:
        for job in ("j1", "j2"):
            await driver.send({"type": "job.requested", "company": "acme", "job": job, "task": "Refund order A1"})
        await driver.settle()
        told = await story(log, names, "acme", "j1", since=0)
        by_correlation = await story(log, names, "acme", told[0].event.correlation, since=0)
        with pytest.raises(StoryUnknown, match="nowhere"):
            await story(log, names, "acme", "nowhere", since=0)
    assert told == by_correlation
    ids = {each.event.id for each in told}
    roots = [each.event for each in told if each.event.causation not in ids]
    assert [root.type for root in roots] == ["job.requested"]
    kinds = [each.event.type for each in told]
    assert sorted(set(kinds)) == [
        "inference.completed", "inference.requested", "job.completed", "job.requested", "job.stepped",
        "tool.returned", "tool_call.proposed",
    ]  # fmt: skip
    assert len(kinds) == 11
    assert "j2" not in {getattr(each.event, "job", None) for each in told}


async def test_the_tree_shows_each_event_under_its_cause(log: EventLog, names, topics, tmp_path: Path) -> None:
    async with Driver(log, [ACTING_JOBS], consumers=[Consumer("world", topics, world)], names=names) as driver:
        await driver.send({"type": "job.requested", "company": "acme", "job": "j1", "task": "Refund order A1"})
        await driver.settle()
        told = await story(log, names, "acme", "j1", since=0)
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    console.print(tree([*told, *told]))
    console.file.close()
    lines = [line for line in console.export_text().splitlines() if "+" in line]
    depth = {line.split()[-4].strip("│├└─ "): line.index(line.split()[-4]) for line in lines}
    assert len(lines) == 11
    assert depth["job.requested"] < depth["tool_call.proposed"] < depth["tool.returned"] < depth["job.completed"]
    assert "answer=Done [ok]." in (tmp_path / "out").read_text()


async def test_a_story_is_one_companys_though_another_has_the_same_ids(log: EventLog, names, topics) -> None:
    async with Driver(log, [ACTING_JOBS], consumers=[Consumer("world", topics, world)], names=names) as driver:
        for company in ("acme", "acme.x"):
            same = {"id": "r1", "correlation": "r1", "job": "j1", "task": f"Refund, says {company} of acme and acme.x"}
            await driver.send({"type": "job.requested", "company": company, **same})
        await driver.settle()
        told = {company: await story(log, names, company, "j1", since=0) for company in ("acme", "acme.x")}
        with pytest.raises(StoryUnknown, match="No event of globex"):
            await story(log, names, "globex", "j1", since=0)
    for company, events in told.items():
        assert {each.event.company for each in events} == {company}
        assert len(events) == 11
    assert [each.event.id for each in told["acme"]] == [each.event.id for each in told["acme.x"]]


async def test_what_another_company_writes_does_not_crowd_out_a_story(
    log: EventLog, names, topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.history.story.EVENTS", 12)
    async with Driver(log, [ACTING_JOBS], consumers=[Consumer("world", topics, world)], names=names) as driver:
        for n in range(40):
            noise = {
                "type": "text.ingested",
                "company": "mallory",
                "text": "acme j1",
                "id": f"j{n}",
                "correlation": "j1",
            }
            await driver.send(noise)
        await driver.send({"type": "job.requested", "company": "acme", "job": "j1", "id": "j1", "task": "Refund"})
        await driver.settle()
        assert len(await story(log, names, "acme", "j1", since=0)) == 11
