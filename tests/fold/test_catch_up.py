"""A projection of several sources, folded anew from nothing: as it was, and without doing anything a second time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from processors.saga import AUTOMATION
from rillfold.testing.driver import Consumer, Driver
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceRequested
from schemas.jobs import JobRequested
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TopicNames
from streams.changelog import Rows, topic_of
from streams.commit import Ports
from streams.failpoint import FailPoint
from streams.folding import Folding
from streams.memory import MemoryLog
from streams.store import MemoryStore

TOOLS = '[{"name":"refund","parameters":{"properties":{"order":{"type":"string"}}}}]'
CALL = '<tool_call>\n{"name": "refund", "arguments": {"order": "7"}}\n</tool_call>'
GROUP = "rillfold-driver"


def model(event: Event, now: int) -> tuple[Event, ...]:
    assert isinstance(event, InferenceRequested)
    replies = [message.content for message in event.messages if message.role == "tool"]
    fields = {"request": event.id, "job": event.job, "text": replies[0] if replies else CALL, "model": "m"}
    tokens = {"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "stop"}
    return (InferenceCompleted(**caused_by(event, "answer", now), **fields, **tokens),)


def tool(event: Event, now: int) -> tuple[Event, ...]:
    assert isinstance(event, ToolCallProposed)
    fields = {"call": event.call, "job": event.job, "tool": event.tool, "ok": True, "status": 200, "body": "done"}
    return (ToolReturned(**caused_by(event, "returned", now), **fields),)


class Anew:
    """A worker with an empty disk and an empty changelog, on a log that has seen it all."""

    def __init__(self, log: MemoryLog) -> None:
        self.sent: list[Event] = []
        self._log, self._changelog = log, count(0)
        self.folding = Folding([AUTOMATION], TopicNames(), Ports(self._publish, self._append, FailPoint()))

    async def _publish(self, events: Sequence[Event]) -> None:
        self.sent += events

    async def _append(self, topic: str, partition: int, rows: Rows) -> int:
        return max(next(self._changelog) for _ in rows)

    async def rows(self) -> dict[int, dict[str, object]]:
        found = {}
        for partition in await self._log.ends(topic_of(AUTOMATION)):
            shard = self.folding.open(AUTOMATION, partition, MemoryStore())
            shard.restored()
            await self.folding.catch_up([shard], self._log, GROUP)
            if rows := dict(shard.rows()):
                found[partition] = rows
        return found


async def finished_jobs(log: MemoryLog) -> dict[int, dict[str, object]]:
    consumers = [Consumer("model", ("inference-request",), model), Consumer("tools", ("tool-call",), tool)]
    async with Driver(log, [AUTOMATION], consumers=consumers) as driver:
        driver.clock = count(1_700_000_000_000).__next__  # type: ignore[assignment]  # no two records at one moment
        for n in range(12):
            fields = {"id": f"r-{n}", "company": "acme", "time": 1, "correlation": f"r-{n}", "job": f"j{n}"}
            await driver.send(JobRequested(**fields, task="Refund order 7", tools=TOOLS))
        await driver.settle()
        return driver._rows(AUTOMATION)


async def test_jobs_end_as_they_ended_and_nothing_is_sent_again():
    log = MemoryLog()
    was = await finished_jobs(log)
    again = Anew(log)
    assert await again.rows() == was
    assert sum(len(rows) for rows in was.values()) == 12
    assert again.sent == []


async def test_what_was_folded_but_never_committed_is_sent_again_with_the_same_ids():
    log = MemoryLog()
    await finished_jobs(log)
    log._groups.clear()  # as if the group had committed nothing
    again = Anew(log)
    await again.rows()
    known = [event for event in again.sent if isinstance(event, ToolCallProposed)]
    async with Driver(log, [AUTOMATION]) as driver:
        there = {event.id for event in await driver.events("tool-call")}
    assert {event.id for event in known} == there
