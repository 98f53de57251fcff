"""Whole jobs over the real fold: model and tools answer, workers die at every step, each job ends once and alike."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors import gate
from processors.gate import Offer
from processors.saga import ACTING_JOBS
from rillfold.testing.driver import Consumer, Driver
from schemas.envelope import Event, caused_by
from schemas.inference import InferenceCompleted, InferenceRequested
from schemas.jobs import JobCompleted, JobRequested
from schemas.tools import ToolCallProposed, ToolReturned
from streams.log.memory import MemoryLog

TOOLS = gate.canonical([Offer(name="refund", parameters={"properties": {"order": {"type": "string"}}})])
STEPS = ("decoded", "published", "appended", "stored")


def model(event: Event, now: int) -> tuple[Event, ...]:
    """Calls the tool, and then says what it answered."""
    assert isinstance(event, InferenceRequested)
    replies = [message.content for message in event.messages if message.role == "tool"]
    order = event.messages[0].content.rsplit(" ", 1)[1]
    call = f'<tool_call>\n{{"name": "refund", "arguments": {{"order": "{order}"}}}}\n</tool_call>'
    return (
        InferenceCompleted(
            **caused_by(event, "answer", now), request=event.id, job=event.job, text=replies[0] if replies else call,
            finish_reason="stop", model="m", prompt_tokens=1, completion_tokens=1,
        ),
    )  # fmt: skip


class Company:
    """What the company's books show: one effect for each idempotency key."""

    def __init__(self) -> None:
        self.effects: dict[str, str] = {}

    def answer(self, event: Event, now: int) -> tuple[Event, ...]:
        assert isinstance(event, ToolCallProposed)
        self.effects.setdefault(event.call, event.arguments)
        fields = {"call": event.call, "job": event.job, "tool": event.tool, "ok": True, "status": 200}
        return (ToolReturned(**caused_by(event, "returned", now), **fields, body=f"did {event.arguments}"),)


def world(company: Company) -> list[Consumer]:
    return [
        Consumer("model", ("inference-request",), model),
        Consumer("tools", ("tool-call",), company.answer),
    ]


def request(job: str) -> JobRequested:
    fields = {"id": f"r-{job}", "company": "acme", "time": 1, "correlation": f"r-{job}", "job": job}
    return JobRequested(**fields, task=f"Refund order {job}", tools=TOOLS)


async def agree(driver: Driver, company: Company, jobs: list[str]) -> None:
    """Each job is completed with its own answer, by one effect of its own, and a fresh fold says the same."""
    assert sorted(company.effects.values()) == sorted(f'{{"order":"{job}"}}' for job in jobs)
    for job in jobs:
        row = driver.query(ACTING_JOBS, f"acme/{job}")
        assert row is not None
        assert (row.status, row.answer, row.step) == ("completed", f'did {{"order":"{job}"}}', 4)
    ends = [event for event in await driver.events("automation-job") if isinstance(event, JobCompleted)]
    assert len({event.id for event in ends}) == len(jobs)
    assert await driver.digest(ACTING_JOBS) == await driver.refold(ACTING_JOBS)


async def test_many_jobs_end_and_replay_calls_nothing(log, names) -> None:
    company, jobs = Company(), [f"j{n}" for n in range(20)]
    async with Driver(log, [ACTING_JOBS], consumers=world(company), names=names, workers=2) as driver:
        for job in jobs:
            await driver.send(request(job))
        await driver.settle()
        await agree(driver, company, jobs)
        before = len(company.effects), len(await driver.events("tool-call"))
        await driver.refold(ACTING_JOBS)
        assert (len(company.effects), len(await driver.events("tool-call"))) == before


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("passes", [1, 2, 3, 4])
async def test_a_worker_that_dies_at_any_step_of_a_commit(step: str, passes: int) -> None:
    company = Company()
    async with Driver(MemoryLog(), [ACTING_JOBS], consumers=world(company)) as driver:
        await driver.send(request("j1"))
        await driver.crash("worker-1", at=step, passes=passes)
        await driver.settle()
        await agree(driver, company, ["j1"])


async def test_the_same_request_twice_is_one_job() -> None:
    company = Company()
    async with Driver(MemoryLog(), [ACTING_JOBS], consumers=world(company)) as driver:
        for _ in range(2):
            await driver.send(request("j1"))
        await driver.settle()
        await driver.send(request("j1"))
        await driver.settle()
        await agree(driver, company, ["j1"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 4), st.sampled_from("abc")), min_size=1, max_size=6))
async def test_any_row_of_crashes_and_rebalances(faults: list[tuple[str, int, str]]) -> None:
    company, jobs = Company(), []
    async with Driver(MemoryLog(), [ACTING_JOBS], consumers=world(company), workers=2) as driver:
        for number, (step, passes, kind) in enumerate(faults):
            jobs.append(hashlib.sha256(f"{number}{faults}".encode()).hexdigest()[:8])
            await driver.send(request(jobs[-1]))
            if kind == "a":
                await driver.crash(f"worker-{number % 2 + 1}", at=step, passes=passes)
            elif kind == "b":
                await driver.rebalance()
            await driver.settle()
        await agree(driver, company, jobs)
