"""Reactions in the test kit: what one emits is said once, what fails is a letter, and nobody waits for either."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillfold.processes import started
from rillfold.settings import Settings
from rillfold.testing.driver import Driver
from rillfold.workers.react import _made
from schemas.codec.codec import decode
from schemas.company import RecordIngested
from schemas.envelope import Event, Origin
from schemas.errors import Stop
from schemas.memory import MemoryNoted
from schemas.rejected import RecordRedriven, RecordRejected
from streams.history.letters import letters
from streams.history.redrive import LeftOut, redrive
from streams.log.kafka.admin import wanted
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import Alone, EventLog, Outgoing, Position, Reached, records_in
from streams.react import thread
from streams.react.reactor import Reactor
from streams.react.rests import BRIEF_SECONDS, HELD_UP_SECONDS, REST, Rests

NOTE = '''
from schemas.memory import MemoryNoted

@app.projection("counted")
def counted(state: Total, event: RecordIngested) -> Total:
    """How many."""
    return Total(state.cents + 1)

@app.reaction()
async def note(event: RecordIngested, emit: Emit) -> None:
    emit(MemoryNoted, memory=event.kind, text=event.data)
'''


def said(kind: str = "order", company: str = "acme", **data: Any) -> dict[str, Any]:
    return {"type": "record.ingested", "company": company, "kind": kind, "data": json.dumps(data)}


async def noted(d: Driver) -> Sequence[MemoryNoted]:
    return [event for event in await d.events("company-data") if isinstance(event, MemoryNoted)]


async def test_what_it_emits_stands_in_the_log_once_whatever_happens(release: Any, log: EventLog, names: Any) -> None:
    async with Driver(log, release(NOTE), names=names) as d:
        companies = [f"company-{n}" for n in range(12)]
        for n, company in enumerate(companies):
            await d.send(said(f"order-{n}", company))
            if n in (2, 5):
                await d.crash("note", at="decoded", passes=2)
                await d.settle()
            if n == 8:
                await d.crash("note", at="appended")
                await d.rebalance("note")
        await d.settle()
        await d.crash("note")
        await d.settle()
        assert sorted(each.company for each in await noted(d)) == sorted(companies)


async def test_company_story_and_id_are_those_of_its_cause(release: Any) -> None:
    async with Driver(MemoryLog(), release(NOTE)) as d:
        await d.send(said("one") | {"correlation": "the-story"})
        await d.settle()
        cause, found = await d.events("company-data")
        assert (found.company, found.causation, found.correlation) == ("acme", cause.id, "the-story")
        first = found.id
    async with Driver(MemoryLog(), release(NOTE)) as again:
        await again.send(said("one"))
        await again.settle()
        assert (await noted(again))[0].id == first, "the place, the reaction and a number say the id"


FAILING = """
import asyncio
import time
from schemas.company import TextIngested
from schemas.errors import Retry
from schemas.inference import InferenceCompleted
from schemas.memory import MemoryNoted

tries = []
mended = []

async def never_heard(seconds: float) -> None:
    while True:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            pass

@app.projection("counted")
def counted(state: Total, event: RecordIngested) -> Total:
    return Total(state.cents + 1)

@app.reaction(seconds=0.2)
async def note(event: RecordIngested, emit: Emit) -> None:
    tries.append(event.kind)
    emit(MemoryNoted, memory=event.kind, text="noted")
    if mended:
        return
    match event.kind:
        case "raises": raise ValueError(event.kind)
        case "exits": raise SystemExit(0)
        case "interrupts": raise KeyboardInterrupt
        case "cancels": raise asyncio.CancelledError
        case "away": raise Retry("not now")
        case "away-once":
            if tries.count("away-once") == 1: raise ConnectionResetError("not now")
        case "half-a-second": raise ConnectionResetError("") if tries.count(event.kind) % 2 else ValueError("")
        case "hangs": await asyncio.sleep(60)
        case "hangs-deaf": await never_heard(60)
        case "blocks": time.sleep(3)
        case "many":
            for n in range(101): emit(MemoryNoted, memory=f"m{n}", text="")
        case "company": emit(MemoryNoted, company="globex", memory="m", text="")
        case "id": emit(MemoryNoted, id="mine", memory="m", text="")
        case "workers": emit(InferenceCompleted, answer="made up")
        case "no-event": emit(str, text="")
        case "field": emit(MemoryNoted, memory="m", text="", more=1)
        case "type": emit(MemoryNoted, memory="m", text=7)
        case "word": emit(MemoryNoted, memory="m" * 1000, text="")
        case "large": emit(TextIngested, text="x" * (2 << 20))
"""
TOLD = {
    "raises": "ValueError: raises",
    "exits": "SystemExit",
    "interrupts": "KeyboardInterrupt",
    "cancels": "CancelledError",
    "away": "Retry: not now",
    "hangs": "has not ended within 0.2 s",
    "hangs-deaf": "has not ended within 0.2 s",
    "blocks": "has not ended within 0.2 s",
    "many": "more than 100 events",
    "company": "with 'company'",
    "id": "with 'id'",
    "workers": "InferenceCompleted, which no company says",
    "no-event": "emits str, which no company says",
    "field": "unknown field `more`",
    "type": "Expected `str`, got `int`",
    "word": "bad_word",
    "large": "above the limit",
}

OUT_OF_TIME = ("hangs", "hangs-deaf", "blocks")


@pytest.mark.parametrize("kind", TOLD)
async def test_what_it_fails_over_is_a_letter_and_nothing_waits_for_it(release: Any, kind: str) -> None:
    async with Driver(MemoryLog(), release(FAILING)) as d:
        for each in ("before", kind, "behind"):
            await d.send(said(each, "acme" if each != "behind" else "globex"))
        await d.settle()
        (letter,) = await d.dead_letters()
        assert (letter.reason, letter.company) == ("reaction_failed", "acme")
        assert letter.detail.startswith("shop/note.v1: ") and TOLD[kind] in letter.detail, letter.detail
        assert ("an_app_of_a_test_" in letter.detail) == (kind not in OUT_OF_TIME), (
            "with its place in the operator's code"
        )
        assert sorted(each.memory for each in await noted(d)) == ["before", "behind"], (
            "what a failed try emits is forgotten"
        )


async def test_what_was_away_is_asked_again_and_pauses_are_the_drivers_time(release: Any) -> None:
    app = release(FAILING)
    tries = app.reactions["note"].call.__globals__["tries"]
    async with Driver(MemoryLog(), app) as d:
        begun = d.clock()
        await d.send(said("away-once"))
        await d.settle()
        assert (d.clock() - begun, len(await noted(d)), await d.dead_letters()) == (500, 1, [])
        await d.send(said("away"))
        await d.settle()
        assert (d.clock() - begun, tries.count("away")) == (500 + 3_500, 4)
        assert len(await noted(d)) == 1


async def test_a_company_that_holds_up_the_others_rests_and_only_it(release: Any) -> None:
    app = release(FAILING)
    tries = app.reactions["note"].call.__globals__["tries"]
    async with Driver(MemoryLog(), app) as d:
        for kind, company in (("away", "acme"), ("one", "acme"), ("two", "globex")):
            await d.send(said(kind, company))
        await d.settle()
        assert "one" not in tries and [each.memory for each in await noted(d)] == ["two"]
        assert ["not tried" in each.detail for each in await d.dead_letters()] == [False, True]
        d.clock.advance(14)
        await d.send(said("three"))
        await d.settle()
        assert sorted(each.memory for each in await noted(d)) == ["three", "two"]


async def test_a_company_that_fails_a_little_at_a_time_rests_too(release: Any) -> None:
    app = release(FAILING)
    tries = app.reactions["note"].call.__globals__["tries"]
    async with Driver(MemoryLog(), app) as d:
        begun = d.clock()
        for kind, company in (*[("half-a-second", "acme")] * 8, ("two", "globex")):
            await d.send(said(kind, company))
        await d.settle()
        assert (d.clock() - begun, tries.count("half-a-second")) == (1_000, 2 * 2)
        assert ["not tried" in each.detail for each in await d.dead_letters()] == [False] * 2 + [True] * 6
        assert [each.memory for each in await noted(d)] == ["two"]
        d.clock.advance(4)
        await d.send(said("three"))
        await d.settle()
        assert sorted(each.memory for each in await noted(d)) == ["three", "two"]


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 5.0)), max_size=50))
def test_failures_of_a_company_take_a_fifth_of_the_time_and_a_second(each: list[tuple[float, float]]) -> None:
    """Whatever it waits between them: at the beginning of any event, what was spent is within the share."""
    rests, now, spent = Rests(), 0.0, 0.0
    for took, pause in each:
        if not rests.resting("acme", now):
            assert spent <= now / (1 + REST) + HELD_UP_SECONDS + 1e-6
            rests.failed("acme", now, took)
            now, spent = now + took, spent + (took if took >= BRIEF_SECONDS else 0.0)
        now += pause
    assert not rests.resting("globex", now)


async def test_a_redrive_tries_again_over_the_record_where_it_stands(release: Any, log: EventLog, names: Any) -> None:
    app = release(FAILING)
    mended = app.reactions["note"].call.__globals__["mended"]
    async with Driver(log, app, names=names) as d:
        for kind in ("raises", "fine"):
            await d.send(said(kind))
        await d.settle()
        (letter,) = await d.dead_letters()
        assert [each.sent_again for each in await listed(d)] == [False]

        async def again() -> int:
            sent = (await redrive(log, names, [letter], d.clock() * 1000)).sent
            d.clock.advance(1)
            return sent

        assert [await again(), await again()] == [1, 0], "a second redrive has nothing to do"
        assert [each.sent_again for each in await listed(d)] == [True]
        await d.settle()
        assert [each.sent_again for each in await listed(d)] == [False], "it has failed again: one letter as before"
        mended.append(True)
        assert await again() == 1
        await d.settle()
        await d.crash("note")
        await d.settle()
        assert sorted(each.memory for each in await noted(d)) == ["fine", "raises"]
        (counted,) = app.projections.values()
        assert d.query(counted, "acme").cents == 2, "nothing was sent a second time"
        assert await d.digest(counted) == await d.refold(counted), "a letter of a reaction refuses nothing"


class Listed:
    def __init__(self, letter: RecordRejected, sent_again: bool) -> None:
        self.letter, self.sent_again = letter, sent_again


async def listed(d: Driver) -> list[Listed]:
    return [Listed(kept.letter, kept.redriven) for kept in await letters(d.log, d.names, lambda _: True)]


async def test_a_letter_is_data_here_too(release: Any) -> None:
    """Marks and headers that nobody of ours has written end nothing, and cost no company anything."""
    app, log = release(NOTE), MemoryLog()
    async with Driver(log, app) as d:
        reaction = app.reactions["note"]
        _, at, _ = await d.send(said("one"))
        for n, (topic, partition, offset) in enumerate(
            [("company-data", 99, 0), ("company-data", at - 4, 0), ("company-data", 0, 1 << 40),
             ("company-data", 0, -1), ("no-topic", 0, 0), ("dead-letter", 0, 0)]
        ):  # fmt: skip
            about = {"topic": topic, "partition": partition, "offset": offset}
            named = reaction.letter_id(Origin(**about))
            await d.send(RecordRedriven(id=f"m{n}", company="acme", time=1, correlation="m", causation=named, **about))
        for value in (b"", b"\xff", b"-5", b"9" * 5000, b"1e3"):
            record = to_outgoing((await d.events("company-data"))[0], d.names)
            await log.append([record._replace(headers=(("rillfold-reacted", value),))])
        await d.settle()
        assert len(await noted(d)) == 5
        forged = RecordRejected(
            id="x", company="acme", time=1, correlation="x", topic="company-data", partition=0, offset=1 << 40,
            timestamp=1, reason="reaction_failed",
        )  # fmt: skip
        assert (await redrive(log, d.names, [forged], 1)).left_out == [LeftOut(forged, "elsewhere")]


BEGIN = """
from schemas.memory import MemoryNoted

@app.reaction(begin={begin!r}, version={version})
async def note(event: RecordIngested, emit) -> None:
    emit(MemoryNoted, memory=event.kind, text="v{version}")
"""


@pytest.mark.parametrize("begin", ["now", "first"])
async def test_where_it_begins_is_declared_and_then_nothing_is_passed_over(
    release: Any, log: EventLog, names: Any, begin: str
) -> None:
    async def sent(kind: str, app: Any = ()) -> list[str]:
        async with Driver(log, app, names=names) as d:
            await d.send(said(kind))
            await d.settle()
            return sorted(f"{each.memory} {each.text}" for each in await noted(d))

    await sent("before")
    seen = {"now": [], "first": ["before v1"]}[begin]
    assert await sent("one", release(BEGIN.format(begin=begin, version=1))) == sorted([*seen, "one v1"])
    await sent("away")
    assert await sent("two", release(BEGIN.format(begin=begin, version=1))) == sorted(
        [*seen, "one v1", "away v1", "two v1"]
    )
    later = {"now": [], "first": ["before v2", "one v2", "away v2", "two v2"]}[begin]
    assert await sent("three", release(BEGIN.format(begin=begin, version=2))) == sorted(
        [*seen, "one v1", "away v1", "two v1", *later, "three v2"]
    ), "the next version begins as it declares"


class FakeSleepyAppender:
    """Falls asleep before it appends, until others have done what they do."""

    def __init__(self, alone: Alone, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._alone, self._meanwhile = alone, meanwhile

    async def append(self, records: Sequence[Outgoing], reached: Reached | None = None) -> Sequence[Position]:
        await self._meanwhile()
        return await self._alone.append(records, reached)


async def test_who_slept_while_another_took_over_says_nothing(release: Any, log: EventLog, names: Any) -> None:
    app = release(NOTE)
    await log.create(wanted(names))
    first, second = (Reactor(log, names, app.reactions["note"], quiet=0) for _ in range(2))
    await first.begin()
    taken = next(f"c{n}" for n in range(99) if partition_of(f"c{n}".encode(), 4) == 3)

    async def meanwhile() -> None:
        """Whose half of the partitions it is, the broker says."""
        while not second.ran:
            async with log.subscribe(second.group, second.topics) as member:
                while not (given := member.assignment()):
                    await second.step(member, 0.1)
                while not second.ran and (names.wire("company-data"), 3) in given:
                    await second.step(member, 0.1)

    async with log.subscribe(first.group, first.topics) as member:
        while not member.assignment():
            await first.step(member, 0.1)
        await log.append([to_outgoing(RecordIngested(**said_by(taken), kind="order", data="{}"), names)])
        while not first._held:
            await first.step(member, 0.1)
        for held in first._held.values():
            held.alone = FakeSleepyAppender(held.alone, meanwhile)
        while not second.ran:
            await first.step(member, 0.1)
    for each in (first, second):
        await each.end()
    found = [event async for event in events_of(log, names.wire("company-data"))]
    assert [event.type for event in found] == ["record.ingested", "memory.noted"]
    assert first.ran == 0


def said_by(company: str) -> dict[str, Any]:
    return {"id": "e", "company": company, "time": 1, "correlation": "c"}


async def events_of(log: EventLog, topic: str) -> AsyncIterator[Event]:
    for partition, start in (await log.starts(topic)).items():
        async for each in records_in(log, topic, partition, start):
            event = decode(each.value, each.origin, each.timestamp)
            assert isinstance(event, Event)
            yield event


ECHO = """
@app.reaction()
async def echo(event: RecordIngested, emit: Emit) -> None:
    emit(RecordIngested, kind="echo", data=event.data)
"""


async def test_reactions_that_answer_each_other_come_to_an_end(release: Any) -> None:
    async with Driver(MemoryLog(), release(ECHO)) as d:
        await d.send(said("call"))
        await d.settle()
        assert len(await d.events("company-data")) == 11
        (letter,) = await d.dead_letters()
        assert "behind 10 other reactions" in letter.detail


async def test_what_its_topic_does_not_take_is_a_letter_and_others_go_on(release: Any) -> None:
    log = MemoryLog()
    async with Driver(log, release(NOTE)) as d:
        log._specs["company-data"] = log._specs["company-data"]._replace(config={"max.message.bytes": "50000"})
        for n, size in enumerate((1, 1_200, 1)):
            await log.append([to_outgoing(record(n, "x" * size), d.names)])
        log._specs["company-data"] = log._specs["company-data"]._replace(config={"max.message.bytes": "49700"})
        await d.settle()
        assert [each.memory for each in await noted(d)] == ["order-0", "order-2"]
        (letter,) = await d.dead_letters()
        assert "more than its topic takes" in letter.detail and letter.value


def record(n: int, text: str) -> Event:
    return RecordIngested(id=f"e{n}", company="acme", time=1, correlation="c", kind=f"order-{n}", data=json.dumps(text))


async def test_each_reaction_goes_on_for_itself(release: Any) -> None:
    two = NOTE + NOTE.split("@app.reaction()")[1].replace("note(", "fail(").join(["@app.reaction()", "\n    1 / 0\n"])
    async with Driver(MemoryLog(), release(two)) as d:
        await d.send(said("one"))
        await d.settle()
        assert len(await noted(d)) == 1
        (letter,) = await d.dead_letters()
        assert letter.detail.startswith("shop/fail.v1: ZeroDivisionError")


async def test_topics_are_those_that_hold_its_events(release: Any, names: Any) -> None:
    """Also between workers of ours, and under other names."""
    text = """
from schemas.memory import MemoryNoted

@app.reaction(topic="inference-result")
async def answered(event: InferenceCompleted, emit: Emit) -> None:
    emit(MemoryNoted, memory="answer", text=event.text)
"""
    log = MemoryLog()
    await log.create(wanted(names))
    async with Driver(log, release(text), names=names) as d:
        answer = {"request": "r", "text": "At six.", "finish_reason": "stop", "model": "m"}
        tokens = {"prompt_tokens": 1, "completion_tokens": 1}
        await d.send({"type": "inference.completed", "company": "acme", **answer, **tokens})
        await d.settle()
        assert [each.text for each in await noted(d)] == ["At six."]


async def test_threads_that_nobody_can_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "LOOK_SECONDS", 0.02)
    thrown, own = threading.Event(), thread.OwnThread("shop/note.v1")

    async def blocks() -> None:
        thrown.wait(20)

    async def works() -> None:
        await asyncio.sleep(0)

    for _ in range(thread.LEFT_MOST):
        assert isinstance(await own.run(blocks, 0.02), thread.OutOfTime)
    with pytest.raises(thread.LeftBehind, match=r"8 runs of shop/note.v1"):
        await own.run(works, 1)
    thrown.set()
    while own.left():  # noqa: ASYNC110 - a thread tells nobody
        await asyncio.sleep(0.01)
    assert await own.run(works, 1) is None
    own.stop()


async def test_its_worker_is_started_where_there_is_a_reaction_and_says_where_there_is_none() -> None:
    assert set(started(reacting=True)) - set(started(reacting=False)) == {"react"}
    with pytest.raises(Stop, match=r"No application here has a reaction: declare one by @app.reaction"):
        async with _made(Settings(app="")):
            pass
