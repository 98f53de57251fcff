"""A job that is taken back asks and calls nothing more, whoever died meanwhile; an end that stands stays."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.saga import ACTING_JOBS
from projections.jobs import WHY_CHARS, Job
from rillfold.testing.driver import Driver
from schemas.envelope import Event
from schemas.inference import InferenceRequested
from schemas.jobs import JobCompleted, JobFailed, JobWithdrawn
from schemas.tools import ToolCallProposed
from streams.log.memory import MemoryLog
from tests.jobs.test_jobs_in_the_log import STEPS, Company, model, request, world
from tests.jobs.test_saga import CALL, answered, react, requested, returned, run

NOW = 1_700_000_000_000_000


def taken_back(n: int = 1, **changes: object) -> JobWithdrawn:
    fields = {"id": f"w{n}", "company": "acme", "time": NOW, "correlation": "r1", "job": "j1", "reason": "a slip"}
    return JobWithdrawn(**(fields | changes))


def folded(events: Iterable[Event]) -> tuple[Job, list[Event]]:
    state, out = ACTING_JOBS.initial("acme/j1"), list[Event]()
    for event in events:
        state = react(state, event, out)
    return state, out


def replies() -> list[Event]:
    """The request, the model's call, and the tool's reply."""
    _, sent = run(requested(), [CALL % "A1", "Refunded."])
    question = next(event for event in sent if isinstance(event, InferenceRequested))
    call = next(event for event in sent if isinstance(event, ToolCallProposed))
    return [requested(), answered(question, CALL % "A1"), returned(call)]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_nothing_follows_from_what_comes_after_it_and_what_comes_is_kept(at: int) -> None:
    inputs = replies()
    before, sent = folded(inputs[:at])
    state, out = folded([*inputs[:at], taken_back(), *inputs[at:]])
    assert (state.status, state.detail, state.answer) == ("withdrawn", "a slip", None)
    assert out == sent and before.status == "running"
    assert len(state.replies) == 2


def test_an_end_that_stands_stays() -> None:
    ended, _ = run(requested(), ["Done."])
    assert ACTING_JOBS.fold(ended, taken_back()) is ended


def test_twice_is_once_and_its_words_are_bounded() -> None:
    state, _ = folded([requested(), taken_back(reason="x" * 60_000)])
    assert len(state.detail) == WHY_CHARS
    assert ACTING_JOBS.fold(state, taken_back(2, reason="another")) is state


@given(st.permutations(range(4)))
def test_the_row_is_the_same_whenever_it_is_read(order: list[int]) -> None:
    """Also before the request: the bridge calls nothing for it, so the saga proposes nothing either."""
    events = [*replies(), taken_back()]
    expected, _ = folded(events)
    state, out = folded(events[n] for n in order)
    assert state == expected
    if order.index(3) < order.index(0):
        assert out == []


def test_another_companys_word_reaches_no_row_of_ours() -> None:
    assert ACTING_JOBS.key(taken_back(company="globex")) == "globex/j1"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("passes", [1, 2, 3])
async def test_what_was_taken_back_while_the_fold_was_dead_stays_so(step: str, passes: int) -> None:
    """Once a call was made, its effect is there; none is made after it, and a fresh fold says the same."""
    company = Company()
    async with Driver(MemoryLog(), [ACTING_JOBS], consumers=world(company)) as driver:
        await driver.send(request("j1"))
        await driver.crash("worker-1", at=step, passes=passes)
        while not driver._crashed:
            await driver._round(0.0)
        await driver.send(taken_back())
        await driver.settle()
        row = driver.query(ACTING_JOBS, "acme/j1")
        assert row is not None and row.status == "withdrawn"
        assert len(company.effects) <= 1
        calls, effects = len(await driver.events("tool-call")), dict(company.effects)
        assert not any(isinstance(event, JobCompleted | JobFailed) for event in await driver.events("automation-job"))
        await driver.crash("worker-1")
        await driver.settle()
        assert (len(await driver.events("tool-call")), company.effects) == (calls, effects)
        assert await driver.digest(ACTING_JOBS) == await driver.refold(ACTING_JOBS)


async def test_an_answer_that_was_under_way_leads_to_no_call() -> None:
    async with Driver(MemoryLog(), [ACTING_JOBS]) as driver:
        await driver.send(request("j1"))
        await driver.settle()
        (question,) = await driver.events("inference-request")
        await driver.send(taken_back())
        await driver.settle()
        await driver.send(model(question, NOW)[0])
        await driver.settle()
        row = driver.query(ACTING_JOBS, "acme/j1")
        assert row is not None and (row.status, len(row.replies)) == ("withdrawn", 1)
        assert await driver.events("tool-call") == []
