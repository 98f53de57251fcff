"""Among a company's own questions the urgent ones go first, and what nobody wants any more is not answered."""

from __future__ import annotations

import asyncio
import itertools
import json
import weakref
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_workers.inbox.inbox import Inbox, Item
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import PRIORITIES, Failure, OnSnippet, Outcome, Question
from gpu_workers.serve.schedule.rows import Limits
from gpu_workers.serve.worker import PAUSE_SECONDS
from rillfold.event_log import now
from rillfold.v1.errors import failed, of_failure
from schemas.inference import InferenceFailed
from schemas.topics import TopicNames
from streams.fairness.urgency import PASSED, ByUrgency
from streams.log.port import EventLog
from tests.serve.test_inference import World, request
from tests.serve.test_turns import until
from tests.support.engine import FakeEngine
from tests.support.listening import OPERATOR
from tests.support.steps import Steps, asked
from tests.support.workbench import CPU, Workbench, ask

HELLO: Any = [{"role": "user", "content": "Who?"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def world(log: EventLog, names: TopicNames) -> World:
    world = World(log, names)
    await world.create()
    return world


# A line


def gone(line: ByUrgency[str]) -> list[str]:
    order = []
    while (first := line.first()) is not None:
        assert line.goes(first) and not line.leave(first)
        order.append(first)
    return order


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans())))
def test_who_is_urgent_goes_first_and_of_them_who_came_first(came: list[tuple[int, bool]]) -> None:
    line = ByUrgency[str]()
    for place, (priority, _) in enumerate(came):
        line.join(f"{place}", place, priority)
    for place, (_, leaves) in enumerate(came):
        assert not leaves or line.leave(f"{place}")
    stay = [(priority, place) for place, (priority, leaves) in enumerate(came) if not leaves]
    assert gone(line) == [f"{place}" for _, place in sorted(stay)] and not len(line)


def test_nobody_is_passed_over_for_ever() -> None:
    line, places = ByUrgency[str](), itertools.count()
    line.join("patient", next(places), 1)
    order = []
    for _ in range(3 * PASSED):
        line.join(f"urgent {(place := next(places))}", place, -1)
        line.goes(first := line.first() or "")
        order.append(first)
    assert order.index("patient") == PASSED


def test_a_line_that_many_pass_through_grows_no_larger() -> None:
    line = ByUrgency[int]()
    line.join(-1, 0, 1)
    for place in range(1, 10_000):
        line.join(place, place)
        line.leave(place)
        assert line.first() == -1
    assert len(line._urgent) < 200 > len(line._oldest)


def test_who_comes_back_to_a_place_again_and_again_stands_there_once() -> None:
    line, came = ByUrgency[int](), 200
    for place in range(came):
        line.join(place, place, place % 3)
    for _ in range(100):
        for place in range(came):  # as a company's that has no tokens left
            assert line.leave(place)
            line.join(place, place, place % 3)
    assert len(line._urgent) < 3 * came > len(line._oldest)
    assert [line.first() for place in range(came) if line.goes(line.first() or 0)] and not len(line)


def test_nothing_of_who_has_left_stays_in_memory() -> None:
    """A row holds its prompt and its adapter."""

    class Row:
        pass

    line, rows = ByUrgency[Row](), [Row() for _ in range(9)]
    left = [weakref.ref(row) for row in rows]
    for place, row in enumerate(rows):
        line.join(row, place, -place)
    for row in rows[1:]:
        assert line.goes(row)
    del rows[1:], row
    assert [ref() for ref in left] == [rows[0], *[None] * 8] and line.first() is rows[0]


# A company's own


def test_the_urgent_of_a_company_are_begun_first_and_others_have_their_turns_as_ever() -> None:
    inbox = Inbox()
    for n, (company, priority) in enumerate([("a", 0), ("a", -5), ("b", 9), ("a", 3), ("b", 0), ("a", -5)]):
        inbox.add(Item(("t", 0), n, company, f"r{n}", priority=priority))
    begun = []
    while item := inbox.first():
        inbox.begun(item)
        begun.append(item)
    assert [item.offset for item in begun] == [1, 4, 5, 2, 0, 3]
    inbox.put_back(begun[0])
    inbox.put_back(begun[4])
    assert inbox.first() == begun[0]
    assert [item.id for item in inbox.drop("a", {"r1", "r0"})] == ["r1", "r0"] and inbox.first() is None
    inbox.passed(("t", 0), 6)
    assert inbox.committable() == {("t", 0): 2}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-9, 9)), max_size=60))
def test_priorities_change_nothing_of_when_others_have_their_turn(came: list[tuple[str, int]]) -> None:
    """Whatever companies make of their priorities: the same owners are let in at the same steps."""

    def turns(heeded: bool) -> list[list[str | None]]:
        steps = Steps(Limits(rows=1, pages=33, step=50, chunk=10, turn=20))
        for ticket, (owner, priority) in enumerate(came):
            steps.submit(asked(ticket, 5, 4, owner=owner, priority=priority if heeded else 0))
        running = []
        while len(steps.ended) < len(came):
            steps.step()
            running.append([row.owner for row in steps.schedule.running])
        return running

    assert turns(True) == turns(False)


def test_the_urgent_of_an_owner_are_let_in_first() -> None:
    steps = Steps(Limits(rows=1, pages=33, step=50, chunk=10, turn=20))
    steps.submit(*(asked(ticket, 5, 4, owner="acme", priority=-ticket) for ticket in range(6)))
    assert [row.ticket for row in steps.run(200)] == [5, 4, 3, 2, 1, 0]


async def test_the_urgent_requests_of_the_log_are_asked_first(world: World) -> None:
    calm = [request(f"calm {n}", priority=7) for n in range(200)]
    urgent = [request(f"urgent {n}", priority=-7) for n in range(3)]
    await world.say(*calm, *urgent)
    engine = FakeEngine(shut=True)
    async with world.worker(engine):
        await until(lambda: len(engine.asked) > 60)
        before = len(engine.asked)
        engine.open()
        await world.results(len(calm) + len(urgent))
    order = [question.id for question in engine.asked]
    assert {each.id for each in urgent} <= set(order[: before + 9]), "as soon as there was room"


# Deadlines


async def test_an_answer_that_nobody_wants_any_more_is_given_up(bench: Workbench) -> None:
    serving = EngineSetup(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        assert isinstance(engine, EmbeddedEngine)
        late, past, good = await asyncio.gather(
            engine.answer(ask("Go on", max_tokens=900, within=0.05)),
            engine.answer(ask("Too late", within=-1.5)),
            engine.answer(ask("Good?", within=1e300)),
        )
        assert isinstance(late, Failure) and isinstance(past, Failure)
        assert {late.reason, past.reason} == {"too_late"} and not late.again
        assert "within 0.05 s" in late.detail and "1.500 s" in past.detail
        assert getattr(good, "text", None) == bench.peft(None, ask("Good?"))
        assert engine.stats().running + engine.stats().waiting == 0 and engine.alive()


async def test_a_request_of_the_log_past_its_deadline_fails_and_is_not_asked_for(world: World) -> None:
    """The worker's clock counts from 1 on: a deadline is a moment, however long it lay in the log."""
    past, open_, far = request("past", deadline=-(2**63)), request("open"), request("far", deadline=2**63 - 1)
    await world.say(past, open_, far)
    engine = FakeEngine()
    async with world.worker(engine):
        results = await world.results(3)
    failed = results[past.id]
    assert isinstance(failed, InferenceFailed) and failed.reason == "too_late"
    assert {results[each.id].type for each in (open_, far)} == {"inference.completed"}


async def test_a_deadline_is_a_moment_of_the_clock_that_the_workers_have(world: World) -> None:
    soon, late = request("soon", deadline=now() + 60_000_000), request("late", deadline=now() - 1_000_000)
    await world.say(soon, late)
    async with world.worker(FakeEngine(), now):
        results = await world.results(2)
    assert results[soon.id].type == "inference.completed"
    assert isinstance(failed := results[late.id], InferenceFailed) and failed.reason == "too_late"


async def test_each_try_has_what_is_left_of_the_time(world: World) -> None:
    class Tired(FakeEngine):
        async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
            self.asked.append(question)
            return Failure(id=question.id, reason="row_failed", detail="not now", again=len(self.asked) < 3)

    engine, asked_for = Tired(), request("thrice", deadline=now() + 60_000_000)
    await world.say(asked_for)
    async with world.worker(engine, now):
        await world.results(1)
    left = [question.within or 0.0 for question in engine.asked]
    assert len(left) == 3 and 60 > left[0] > left[1] + PAUSE_SECONDS > left[2] + 2 * PAUSE_SECONDS


async def test_what_nobody_wants_any_more_waits_for_no_room(bench: Workbench) -> None:
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(device=CPU, company_waiting=1)) as engine:
        assert isinstance(engine, EmbeddedEngine)
        first = asyncio.create_task(engine.answer(ask("Go on", max_tokens=500, company="acme")))
        await until(lambda: engine.stats().running > 0)
        full, late = (
            await engine.answer(ask("Full", company="acme")),
            await engine.answer(ask("Late", company="acme", within=-5.0)),
        )
        first.cancel()
    assert isinstance(full, Failure) and isinstance(late, Failure)
    assert (full.reason, late.reason) == ("queue_full", "too_late")


# By HTTP


async def test_a_chat_request_may_say_both(engine: FakeEngine, client: openai.AsyncOpenAI) -> None:
    for more in ({"priority": -3, "within": 2.5}, {"priority": None, "within": None}, {}):
        await client.chat.completions.create(model="base", messages=HELLO, extra_body=more)
    assert [(question.priority, question.within) for question in engine.asked] == [(-3, 2.5), (0, None), (0, None)]


async def test_what_is_too_late_is_said_and_not_asked_again(client: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    engine.shut()
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await client.chat.completions.create(model="base", messages=HELLO, extra_body={"within": 0.05})
    assert refused.value.code == "too_late" and len(engine.asked) == 1


@pytest.mark.parametrize(
    ("reason", "kind"), [("too_late", "invalid_request_error"), ("engine_stopped", "server_error")]
)
def test_a_stream_ends_with_the_error_that_a_whole_answer_would_be(reason: str, kind: str) -> None:
    failure = Failure(id="q", reason=reason, detail="not in time", again=kind == "server_error")
    assert json.loads(bytes(failed(failure).body)) == of_failure(failure)
    assert of_failure(failure)["error"]["type"] == kind


@pytest.mark.parametrize(
    "body",
    [
        {"priority": PRIORITIES + 1},
        {"priority": -PRIORITIES - 1},
        {"priority": 1.5},
        {"priority": "first"},
        {"within": 0},
        {"within": -1},
        {"within": "soon"},
        {"within": 1e30},
        {"within": True},
        {"within": "5"},
        {"priority": True},
        {"max_tokens": "7"},
        {"temperature": False},
    ],
)
async def test_neither_is_taken_beyond_its_bounds(body: dict[str, Any], url: str, engine: FakeEngine) -> None:
    asked_for = {"model": "base", "messages": HELLO, **body}
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {OPERATOR.token}"}) as client:
        answer = await client.post("/v1/chat/completions", json=asked_for)
    assert answer.status_code == 400 and next(iter(body)) in answer.text and not engine.asked
