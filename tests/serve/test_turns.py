"""Whose request is next: what one company asked before never decides when another is answered."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpu_workers.inbox import answered, reread
from gpu_workers.inbox.inbox import Inbox, Item
from gpu_workers.inbox.reread import Reread
from gpu_workers.serve import worker as inference
from gpu_workers.serve.port import Failure, OnSnippet, Outcome, Question
from gpu_workers.serve.worker import InferenceWorker
from schemas.inference import InferenceRequested
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.port import EventLog, Outgoing, Position, TopicSpec
from tests.serve.test_inference import WAIT, World, request
from tests.support.engine import FakeEngine

AT_ONCE, SHARE = 8, 4


@pytest.fixture
async def world(log: EventLog, names: TopicNames) -> World:
    world = World(log, names)
    await world.create()
    return world


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost nothing fits into memory, so what is remembered does not hide what is not."""
    monkeypatch.setattr(inference, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(reread, "COMPANY_BYTES", 20_000)
    monkeypatch.setattr(answered, "REMEMBERED", 10)
    monkeypatch.setattr(answered, "MARK", 5)


@asynccontextmanager
async def working(world: World, engine: Any, inbox: Inbox | None = None) -> AsyncIterator[Inbox]:
    inbox, ready, clock = Inbox(share=SHARE) if inbox is None else inbox, asyncio.Event(), itertools.count(1)
    worker = InferenceWorker(world.log, world.names, engine, lambda: next(clock), AT_ONCE, inbox)
    running = asyncio.create_task(worker.run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), WAIT)
        yield inbox
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def many(count: int, company: str = "acme", **changes: Any) -> list[InferenceRequested]:
    return [request(f"{i}", company=company, **changes) for i in range(count)]


async def test_thousands_of_one_company_in_every_partition_hold_up_no_other(world: World) -> None:
    flood, one = many(3_000), request("One?", company="globex")
    await world.say(*flood, one)
    engine = FakeEngine(shut=True)
    async with working(world, engine) as inbox:
        await until(lambda: len(inbox) == len(flood) + 1)
        await until(lambda: len(engine.asked) == SHARE + 1)
        asked = Counter(question.company for question in engine.asked)
        assert asked == {"acme": SHARE, "globex": 1}, "it is asked of the engine before a single answer was given"
        engine.open()
        results = await world.until("inference-result", lambda events: any(e.company == "globex" for e in events))
        assert results
        await until(lambda: len(engine.asked) >= 200)  # their words come from the log again
        late = request("Late?", company="initech")
        before = len(engine.asked)
        await world.say(late)
        await until(lambda: any(question.company == "initech" for question in engine.asked))
        place = [question.company for question in engine.asked].index("initech")
        waits = len(flood) - place
    assert before <= place and waits > 1_000, "the flood was over before it was of use"


class Appends(MemoryLog):
    """On a real broker each is acknowledged by all in-sync replicas, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.appends: Counter[str] = Counter()

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        self.appends.update({record.topic for record in records})
        return await super().append(records)


async def test_thousands_of_records_that_are_no_events_are_buried_a_poll_at_a_time() -> None:
    """A batch of a few kilobytes may hold so many empty ones."""
    log, names = Appends(), TopicNames()
    world = World(log, names)
    await world.create()
    nothing = Outgoing("inference-request", b"", b"acme")
    await log.append([nothing] * 1_500)
    one = request("One?", company="globex")
    await world.say(one)
    async with working(world, FakeEngine()):
        await world.results(1)
        letters = await world.until("dead-letter", lambda events: len(events) >= 1_500)
    assert len({letter.id for letter in letters}) == len(letters) == 1_500
    assert log.appends["dead-letter"] <= 30


async def test_no_more_waits_in_memory_than_is_said_and_all_is_answered_once(world: World) -> None:
    asked = many(150) + many(5, "globex")
    await world.say(*asked)
    inbox, engine, most = Inbox(most=40, share=SHARE), FakeEngine(), 0

    class Watched(FakeEngine):
        async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
            nonlocal most
            most = max(most, len(inbox))
            return await engine.answer(question, on_snippet)

    async with working(world, Watched(), inbox):
        results = await world.results(len(asked))
        assert set(results) == {each.id for each in asked}
    assert SHARE < most <= 40


async def test_what_one_company_asks_beyond_its_room_fails_by_name_and_no_other_waits(world: World) -> None:
    flood, one = many(60), request("One?", company="globex")
    await world.say(*flood, *flood[-3:], one)
    engine = FakeEngine(never=lambda question: question.company == "acme")
    async with working(world, engine, Inbox(most=30, share=SHARE, each=20)) as inbox:
        results = await world.until("inference-result", lambda events: len({e.request for e in events}) == 41)
        assert len(inbox) == 20
    failed = [event for event in results if event.company == "acme"]
    assert {event.reason for event in failed} == {"too_many_requests"} and "Send it again" in failed[0].detail
    assert len({event.id for event in failed}) == len(failed) == 40
    assert [event.type for event in results if event.company == "globex"] == ["inference.completed"]
    engine = FakeEngine()
    async with working(world, engine):
        await world.until("inference-result", lambda events: len({e.request for e in events}) == 61)
        assert len(engine.asked) == 20, "what has failed by name is not asked again"


async def test_a_crash_far_beyond_the_first_open_request_repeats_nothing(world: World) -> None:
    asked = [request("stuck", job="j"), *many(120, job="j")]
    await world.say(*asked)
    stuck = asked[0].id
    for count in (40, 80, 120):
        async with working(world, FakeEngine(never=lambda question: question.id == stuck)):
            await world.results(count)
            more = many(30, f"late-{count}", job="j")
            await world.say(*more)
            asked += more
    async with working(world, FakeEngine()):
        assert set(await world.results(len(asked))) == {each.id for each in asked}
    group, topic = world.names.wire(inference.GROUP), world.names.wire("inference-request")
    async with working(world, FakeEngine()):
        last = request("last", job="j")
        await world.say(last)
        assert last.id in await world.results(len(asked) + 1)
    committed, ends = await world.log.committed(group, topic), await world.log.ends(topic)
    assert all(committed[partition] >= ends[partition] - 1 for partition in committed)


async def test_workers_that_come_and_go_leave_one_effective_result_for_each(world: World) -> None:
    asked = many(400) + many(20, "globex")
    await world.say(*asked)

    def answered_by(events: Any) -> int:
        return len({event.request for event in events})

    async with working(world, FakeEngine()):
        await world.until("inference-result", lambda events: answered_by(events) >= 30)
        async with working(world, FakeEngine()):
            await world.until("inference-result", lambda events: answered_by(events) >= 120)
        results = await world.until("inference-result", lambda events: answered_by(events) == len(asked))
    assert len({event.id for event in results}) == len(asked)


async def test_what_was_away_begins_again_at_what_is_committed() -> None:
    log, place = MemoryLog(), ("t", 0)
    await log.create([TopicSpec("t", 1)])
    await log.append([Outgoing("t", b"k", b"%d" % n) for n in range(9)])
    inbox = Inbox()
    async with log.subscribe("g", ["t"]) as group:
        await inbox.ours(group, await group.poll(0, 5))
        inbox.add(Item(place, 0, "acme", "r"))
        inbox.passed(place, 5)
        async with log.subscribe("g", ["t"]):
            pass
        old = await group.poll(0, 2)
        assert [record.offset for record in old[place]] == [0, 1]
        assert not inbox.current(group)
        assert await inbox.ours(group, old) == {} and len(inbox) == 0
        assert inbox.committable() == {} and inbox.current(group)
        again = await inbox.ours(group, await inbox.poll(group, 0))
        assert [record.offset for record in again[place]] == list(range(9))


def test_one_company_never_has_more_than_its_share_begun() -> None:
    inbox = Inbox(share=2)
    items = [Item(("t", n % 2), n // 2, company, f"r{n}") for n, company in enumerate("aaaaaabbb")]
    for item in items:
        inbox.add(item)
    for place in (("t", 0), ("t", 1)):
        inbox.passed(place, 9)
    begun = []
    while item := inbox.first():
        inbox.begun(item)
        begun.append(item)
    assert [item.company for item in begun] == ["a", "b", "a", "b"]
    assert inbox.waiting(begun[0].place, begun[0].offset) is None
    inbox.finished(begun[2])
    assert (again := inbox.first()) and again.company == "a"
    inbox.keep_only({("t", 1)})
    assert {item.place for item in items if inbox.holds(item)} == {("t", 1)}
    assert len(inbox) == sum(inbox.holds(item) for item in items) and set(inbox.committable()) == {("t", 1)}


async def test_words_are_kept_within_bounds_and_read_again() -> None:
    log, place, inbox = MemoryLog(), ("t", 0), Inbox()
    await log.create([TopicSpec("t", 1)])
    await log.append([Outgoing("t", b"k", b"%d" % n * 3_000) for n in range(9)])
    words = Reread(log, inbox)
    items = [Item(place, n, "acme", f"r{n}") for n in range(9)]
    async with log.subscribe("g", ["t"]) as group:
        for item, record in zip(items, (await group.poll(0))[place], strict=True):
            inbox.add(item)
            words.keep(item, record)
    inbox.passed(place, 9)
    assert 0 < len(words._kept) < 9
    for item in reversed(items):
        inbox.begun(item)
        record = await words.of(item)
        assert record is not None and record.value == b"%d" % item.offset * 3_000
    assert not words._kept and not words._bytes
    log.truncate("t", 0, 5)
    assert await words.of(items[2]) is None


class Limited(FakeEngine):
    """The fake model, with no more tokens for some companies."""

    def __init__(self, limited: set[str], reason: str = "too_fast") -> None:
        super().__init__()
        self.limited, self.refused = limited, Counter[str]()
        self._reason = reason

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        if str(question.company) in self.limited:
            self.refused[str(question.company)] += 1
            return Failure(id=question.id, reason=self._reason, detail="of the test", again=True, wait=0.05)
        return await super().answer(question, on_snippet)


@pytest.mark.parametrize("reason", ["too_fast", "queue_full"])
async def test_companies_that_must_wait_have_no_places_of_others_and_fail_nothing(
    reason: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "FULL_SECONDS", 0.05)
    names = ("acme", "globex", "hooli")
    assert len(names) * SHARE > AT_ONCE, "together they could hold every place"
    waits = [each for company in names for each in many(30, company)]
    await world.say(*waits)
    engine = Limited(set(names), reason)
    async with working(world, engine) as inbox:
        await until(lambda: len(inbox) == len(waits) and len(engine.refused) == len(names))
        await world.say(*(others := many(40, "initech")))
        results = await world.results(len(others))
        assert set(results) == {each.id for each in others}
        assert len(inbox) == len(waits)
        engine.limited.clear()
        results = await world.results(len(others) + len(waits))
    assert {event.type for event in results.values()} == {"inference.completed"}
    order = [question.id for question in engine.asked if question.company == "acme"]
    assert sorted(order) == sorted(each.id for each in waits if each.company == "acme"), "each is answered once"


async def test_who_waits_is_not_asked_for_all_the_time(world: World) -> None:
    await world.say(*many(50))
    engine = Limited({"acme"})
    async with working(world, engine):
        await until(lambda: engine.refused["acme"] > 0)
        before = engine.refused["acme"]
        await asyncio.sleep(0.5)
        assert engine.refused["acme"] == before, "it rests for a second"
        await until(lambda: engine.refused["acme"] > before)
        assert engine.refused["acme"] <= before + SHARE


async def test_the_log_commits_nothing_beyond_what_waits(world: World) -> None:
    first, second = request("first", job="j"), request("second", job="j", company="globex")
    await world.say(first, second)
    async with working(world, Limited({"acme"})):
        assert set(await world.results(1)) == {second.id}
    async with working(world, FakeEngine()) as inbox:
        assert set(await world.results(2)) == {first.id, second.id}
        await until(lambda: len(inbox) == 0)


def test_what_is_put_back_is_next_of_its_company_and_no_other() -> None:
    inbox = Inbox(share=3)
    items = [Item(("t", 0), n, company, f"r{n}") for n, company in enumerate("aaab")]
    for item in items:
        inbox.add(item)
    begun = [inbox.first() for _ in range(4) if (item := inbox.first()) and not inbox.begun(item)]
    assert len(begun) == 4 and inbox.first() is None
    for item in (items[1], items[0]):
        inbox.put_back(item)
    assert inbox.first() == items[0] and inbox.first({"a"}) is None
    assert inbox.waiting(items[0].place, 0) == items[0] and inbox.has("a", "r0")
    inbox.passed(("t", 0), 4)
    assert inbox.committable() == {("t", 0): 0} and len(inbox) == 4
    inbox.keep_only(())
    inbox.put_back(items[2])
    assert inbox.first() is None, "what is another worker's by now is not put back"
