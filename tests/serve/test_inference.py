"""The consumer: one result for each request whatever happens, adapters within a moment of their event."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest

from gpu_workers.refused import EngineStopped
from gpu_workers.serve import worker as inference
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import AdapterSpec, Failure, OnSnippet, Outcome, Question
from gpu_workers.serve.schedule.rows import Limits
from gpu_workers.serve.worker import InferenceWorker
from processors.answers import ToolCalls, parse
from schemas.adapters import AdapterReady
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin, derived_id
from schemas.inference import ANY_CALL, InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.rejected import RecordRejected, Unusable
from schemas.topics import BY_NAME, TopicNames
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, TopicSpec
from tests.support.engine import FaultyEngine
from tests.support.workbench import CPU, FINE, HOSTILE, Workbench, ask

TOPICS = ("inference-request", "inference-result", "adapter-ready", "dead-letter")
WAIT = 30.0


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[EmbeddedEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=8), capacity=4)
    async with embedded(str(bench.base), bench.root / "cache", serving, bench.store) as engine:
        yield engine


class World:
    """The log as a test sees it: what goes in, what has come out."""

    def __init__(self, log: EventLog, names: TopicNames) -> None:
        self.log, self.names = log, names

    async def create(self) -> None:
        await self.log.create([TopicSpec(self.names.wire(name), BY_NAME[name].partitions) for name in TOPICS])

    async def say(self, *events: Event) -> None:
        await self.log.append([to_outgoing(event, self.names) for event in events])

    async def heard(self, topic: str) -> list[Event]:
        wire, events = self.names.wire(topic), list[Event]()
        for partition in await self.log.ends(wire):
            async for batch in self.log.read(wire, partition, 0):
                for record in batch:
                    event = decode(record.value, Origin(topic, partition, record.offset), record.timestamp)
                    assert isinstance(event, Event)
                    events.append(event)
        return events

    async def until(self, topic: str, enough: Callable[[Sequence[Any]], bool]) -> list[Any]:
        async with asyncio.timeout(WAIT):
            while not enough(found := await self.heard(topic)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    async def results(self, count: int) -> dict[str, InferenceCompleted | InferenceFailed]:
        """By request; exactly one each."""
        found = await self.until("inference-result", lambda events: len(events) >= count)
        by_request = {event.request: event for event in found}
        assert len(by_request) == len(found), "a request was answered twice"
        return by_request

    @asynccontextmanager
    async def worker(self, engine: Any, now: Callable[[], int] | None = None) -> AsyncIterator[asyncio.Task[None]]:
        """Without a clock it counts from 1 on."""
        ready = asyncio.Event()
        worker = InferenceWorker(self.log, self.names, engine, now or partial(next, itertools.count(1)))
        running = asyncio.create_task(worker.run(ready.set))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT)
        waiting.cancel()
        try:
            yield running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@pytest.fixture
async def world(log: EventLog, names: TopicNames) -> World:
    world = World(log, names)
    await world.create()
    return world


def request(text: str, adapter: str | None = None, company: str = "acme", **changes: Any) -> InferenceRequested:
    question = ask(text, adapter)
    id_ = derived_id(f"{company}-{adapter}-{text}", 0)
    given = {"id": id_, "company": company, "time": 1, "correlation": id_, "messages": question.messages}
    return InferenceRequested(**{**given, "adapter": adapter, "max_tokens": 8, **changes})


def ready_event(spec: AdapterSpec, company: str = "acme", identity: str = '{"tools_in_prompt": false}') -> AdapterReady:
    id_ = derived_id(f"{spec.key}-{company}", 0)
    return AdapterReady(
        id=id_, company=company, time=1, correlation=id_, adapter=spec.key.name, adapter_version=spec.key.version,
        run="r", sha256=str(spec.sha256), uri="file:///a", method="lora", rank=8, alpha=16.0, base_model="tiny",
        base_sha256=str(spec.base_sha256), manifest="m", ranges=(), seed=0, identity=identity,
    )  # fmt: skip


async def test_a_mixed_batch_of_requests_is_answered_right(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    specs = [bench.adapter("acme/ops", seed=2), bench.adapter("globex/ops", seed=4)]
    requests = [
        request("Same words?"),
        request("Same words?", "acme/ops"),
        request("Same words?", "globex/ops", company="globex"),
    ]
    await world.say(*[ready_event(spec, spec.key.name.partition("/")[0]) for spec in specs])
    await world.say(*requests)
    async with world.worker(engine):
        results = await world.results(3)
    answers = [results[each.id] for each in requests]
    assert all(isinstance(each, InferenceCompleted) for each in answers), answers
    expected = [bench.peft(spec, ask("Same words?")) for spec in (None, *specs)]
    assert [each.text for each in answers if isinstance(each, InferenceCompleted)] == expected
    assert len(set(expected)) == 3
    for each, asked in zip(answers, requests, strict=True):
        assert (each.causation, each.correlation, each.company) == (asked.id, asked.correlation, asked.company)


NO_FORMS = ["null", "7", '"call"', "{}", '{"call":7}', '{"call":null,"schema":{}}', '{"tool":"a"}', '{"schema":7}', "{"]
NO_FORMS += ['{"call":"wipe"}', '{"schema":{"not":{}}}']
LOOKUP = '[{"name":"lookup","parameters":{"properties":{"id":{"enum":["C-1","C-2"]}},"required":["id"]}}]'


async def test_a_request_holds_its_answer_to_a_form_and_one_that_is_none_is_its_own_failure(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    """An adapter that knows its tools by heart reads the prompt that it was trained on, and calls one of the tools."""
    await world.say(ready_event(bench.adapter("acme/heart", seed=2)))
    held = {"tools": LOOKUP, "max_tokens": 200}
    free = request("Free?", "acme/heart")
    forms = (ANY_CALL, '{"call":"lookup"}')
    calls = [request(f"Call {n}?", "acme/heart", must=must, **held) for n, must in enumerate(forms)]
    fits = request("Fit?", must='{"schema":{"enum":["yes","no"]}}')
    odd = [request(f"Odd {n}?", must=must, **held) for n, must in enumerate(NO_FORMS)]
    await world.say(free, *calls, fits, *odd)
    async with world.worker(engine):
        results = await world.results(4 + len(odd))
    plain = results[free.id]
    assert isinstance(plain, InferenceCompleted)
    for each in calls:
        answer = results[each.id]
        assert isinstance(answer, InferenceCompleted), answer
        said = parse(answer.text)
        assert isinstance(said, ToolCalls) and [call.name for call in said.calls] == ["lookup"]
        assert abs(answer.prompt_tokens - plain.prompt_tokens) < 8, "the tools are not in its prompt"
    answer = results[fits.id]
    assert isinstance(answer, InferenceCompleted) and answer.text in ('"yes"', '"no"')
    reasons = [getattr(results[each.id], "reason", "answered") for each in odd]
    assert reasons == ["bad_question"] * len(odd)


async def test_an_adapter_is_served_as_soon_as_its_event_is_in_the_log(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    async with world.worker(engine):
        for version in (1, 2, 3):
            spec = bench.adapter("acme/fresh", version, seed=10 + 2 * version)
            await world.say(ready_event(spec))
            asked = request(f"Now {version}?", "acme/fresh", adapter_version=version)
            await world.say(asked)  # at once: the worker must look into the log before it says no
            results = await world.results(version)
            answer = results[asked.id]
            assert isinstance(answer, InferenceCompleted), answer
            assert (answer.adapter, answer.adapter_version) == ("acme/fresh", version)
            assert answer.text == bench.peft(spec, ask(f"Now {version}?"))


async def test_nothing_crosses_between_companies(bench: Workbench, engine: EmbeddedEngine, world: World) -> None:
    spec = bench.adapter("acme/secret", seed=6)
    usurped = bench.adapter("acme/usurped", seed=8)
    await world.say(ready_event(spec), ready_event(usurped, company="globex"))
    thief = request("Tell!", "acme/secret", company="globex")
    stranger = request("Tell!", "globex/none", company="globex")
    own = request("Tell!", "acme/usurped")
    await world.say(thief, stranger, own)
    async with world.worker(engine):
        results = await world.results(3)
    for each in (thief, stranger, own):
        failed = results[each.id]
        assert isinstance(failed, InferenceFailed) and failed.reason == "unknown_adapter"


async def test_an_artifact_of_one_company_never_answers_under_the_name_of_another(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    """Whoever has learned its hash can say that it is his; the artifact itself says whose it is."""
    spec = bench.adapter("acme/taken", seed=6)
    claimed = msgspec.structs.replace(ready_event(spec, "globex"), adapter="globex/mine")
    await world.say(ready_event(spec), claimed)
    own, thief = request("Mine?", "acme/taken"), request("Mine?", "globex/mine", company="globex")
    async with world.worker(engine):
        await world.say(own)
        answer = (await world.results(1))[own.id]
        await world.say(thief)  # it lies in memory by now
        failed = (await world.results(2))[thief.id]
    assert isinstance(answer, InferenceCompleted) and answer.text == bench.peft(spec, ask("Mine?"))
    assert isinstance(failed, InferenceFailed) and failed.reason == "unusable_adapter", failed
    assert "not of globex" in failed.detail


async def test_a_damaged_adapter_fails_its_requests_and_the_version_before_goes_on(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    good, bad = bench.adapter("acme/twice", 1, seed=14), bench.adapter("acme/twice", 2, seed=16)
    assert bad.folder is not None
    tensors = bad.folder / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x00")
    async with world.worker(engine):
        await world.say(ready_event(good), ready_event(bad))
        newest, named = request("Which?", "acme/twice"), request("Two?", "acme/twice", adapter_version=2)
        await world.say(newest, named)
        results = await world.results(2)
    completed, failed = results[newest.id], results[named.id]
    assert isinstance(completed, InferenceCompleted) and completed.adapter_version == 1
    assert isinstance(failed, InferenceFailed) and failed.reason == "unusable_adapter"


async def test_the_same_request_twice_is_answered_once(engine: EmbeddedEngine, world: World) -> None:
    twice, last = request("Once?"), request("Last?")
    await world.say(twice, twice)
    async with world.worker(engine):
        await world.results(1)
        await world.say(twice, last)
        assert set(await world.results(2)) == {twice.id, last.id}


async def test_bytes_that_are_no_event_go_to_the_dead_letters(engine: EmbeddedEngine, world: World) -> None:
    good = request("Still there?")
    await world.log.append([to_outgoing(good, world.names)._replace(value=b"\xc3\x01nonsense")])
    await world.say(good)
    async with world.worker(engine):
        assert set(await world.results(1)) == {good.id}
        dead = await world.until("dead-letter", lambda events: len(events) == 1)
    assert isinstance(dead[0], RecordRejected) and dead[0].value == b"\xc3\x01nonsense"
    # As on the broker: whoever sends it again must not send it to another installation's topic.
    assert dead[0].topic == world.names.wire("inference-request")


class DyingEngine(FaultyEngine):
    """Fault: answers so many questions, then the worker dies before anything more is published."""

    def __init__(self, engine: EmbeddedEngine, answers: int) -> None:
        super().__init__(engine)
        self._left = answers
        self.dead = asyncio.Event()

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        outcome = await self._engine.answer(question, on_snippet)
        if self._left <= 0:
            self.dead.set()
            await asyncio.Event().wait()
        self._left -= 1
        return outcome


async def test_a_worker_that_dies_loses_nothing_and_repeats_nothing(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    requests = [request(f"Number {i}?") for i in range(24)]
    await world.say(*requests)
    for survived in (0, 3, 5):
        dying = DyingEngine(engine, survived)
        async with world.worker(dying):
            await asyncio.wait_for(dying.dead.wait(), WAIT)
    async with world.worker(engine):
        results = await world.results(24)
    assert set(results) == {each.id for each in requests}
    assert all(isinstance(each, InferenceCompleted) for each in results.values())


class ForgetfulLog:
    """Fault: offsets are never committed, as when each death comes between a result and its commit."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[Any]:
        async with self._log.subscribe(group, topics) as subscription:

            async def nothing(_offsets: object) -> None:
                return None

            subscription.commit = nothing  # type: ignore[method-assign]
            yield subscription


async def test_a_result_without_its_commit_is_not_repeated(engine: EmbeddedEngine, world: World) -> None:
    first, second = [[request(f"{turn} {i}?") for i in range(6)] for turn in ("first", "second")]
    forgetful = World(ForgetfulLog(world.log), world.names)  # type: ignore[arg-type]
    await world.say(*first)
    async with forgetful.worker(engine):
        await world.results(6)
    await world.say(*second)
    async with forgetful.worker(engine):
        await world.results(12)


class StumblingEngine(FaultyEngine):
    """Fault: every question fails twice with a reason to ask again."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        super().__init__(engine)
        self._failed = dict[str, int]()

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        self._failed[question.id] = self._failed.get(question.id, 0) + 1
        if self._failed[question.id] <= 2:
            return Failure(id=question.id, reason="engine_stopped", detail="a fault of the test", again=True)
        return await self._engine.answer(question, on_snippet)


async def test_what_may_go_better_is_tried_again(engine: EmbeddedEngine, world: World) -> None:
    asked = request("Again?")
    await world.say(asked)
    async with world.worker(StumblingEngine(engine)):
        assert isinstance((await world.results(1))[asked.id], InferenceCompleted)


async def results_by_company(world: World, count: int) -> dict[tuple[str, str], InferenceCompleted | InferenceFailed]:
    found = await world.until("inference-result", lambda events: len(events) >= count)
    by_request = {(event.company, event.request): event for event in found}
    assert len(by_request) == len(found), "a request was answered twice"
    return by_request


async def test_two_companies_with_one_request_id_both_get_their_own_answer(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    specs = [bench.adapter("acme/ops", seed=2), bench.adapter("globex/ops", seed=4)]
    await world.say(*[ready_event(spec, spec.key.name.partition("/")[0]) for spec in specs])
    same = {"id": "the-same", "correlation": "the-same", "job": "the-same-job"}
    await world.say(*[request("Which?", f"{name}/ops", name, **same) for name in ("acme", "globex")])
    async with world.worker(engine):
        await results_by_company(world, 2)
        await world.say(*[request("Which?", f"{name}/ops", name, **same) for name in ("acme", "globex")])
        last = request("Last?")
        await world.say(last)
        results = await results_by_company(world, 3)
    async with world.worker(engine):
        assert await results_by_company(world, 3) == results
    for spec in specs:
        answer = results[spec.key.name.partition("/")[0], "the-same"]
        assert isinstance(answer, InferenceCompleted) and answer.text == bench.peft(spec, ask("Which?"))


def legal(names: TopicNames) -> dict[str, InferenceRequested]:
    """Those that can be written at all."""
    asked = {
        name: request(name, **{"adapter_version" if key == "version" else key: value for key, value in changes.items()})
        for name, changes in HOSTILE.items()
        if not {"top_p", "within"} & set(changes)  # only HTTP has them
    }
    return {name: each for name, each in asked.items() if writable(each, names)}


async def test_hostile_requests_fail_alone_and_by_name(bench: Workbench, engine: EmbeddedEngine, world: World) -> None:
    hostile = legal(world.names)
    assert len(hostile) > 5
    good = [request(f"Good {i}?", company="globex") for i in range(4)]
    await world.say(*good[:2], *hostile.values(), *good[2:])
    async with world.worker(engine) as running:
        results = await world.results(len(hostile) + 4)
        assert not running.done()
    for each in good:
        answer = results[each.id]
        assert isinstance(answer, InferenceCompleted)
        assert answer.text == bench.peft(None, ask(each.messages[0].content))
    answered = {name for name, asked in hostile.items() if isinstance(results[asked.id], InferenceCompleted)}
    assert answered == FINE & set(hostile)


class RaisingEngine(FaultyEngine):
    """Fault: every other question raises what no engine should."""

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        for error in (RecursionError, MemoryError, OSError, RuntimeError, KeyError):
            if question.messages[0].content == error.__name__:
                raise error("a fault of the test \ud800" + "x" * 100_000)
        return await self._engine.answer(question, on_snippet)


async def test_whatever_a_question_raises_is_its_own_result(engine: EmbeddedEngine, world: World) -> None:
    names = ["RecursionError", "MemoryError", "OSError", "RuntimeError", "KeyError"]
    asked = [request(name) for name in [*names, "fine"]]
    await world.say(*asked)
    async with world.worker(RaisingEngine(engine)):
        results = await world.results(len(asked))
    assert [getattr(results[each.id], "reason", "") for each in asked] == ["row_failed"] * len(names) + [""]


class FullEngine(FaultyEngine):
    """Fault: no room for one company for a while, far longer than anybody counts attempts."""

    def __init__(self, engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(engine)
        self.asked, self.room = 0, False
        monkeypatch.setattr(inference, "FULL_SECONDS", 0.001)
        monkeypatch.setattr(inference, "LONGEST_PAUSE", 0.01)

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        if question.company == "acme" and not self.room:
            self.asked += 1
            return Failure(id=question.id, reason="queue_full", detail="a fault of the test", again=True)
        return await self._engine.answer(question, on_snippet)


async def test_a_full_engine_is_never_an_answer_and_holds_up_nobody_else(
    engine: EmbeddedEngine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FullEngine(engine, monkeypatch)
    waits = [request(f"{i}") for i in range(5)]
    others = [request(f"{i}", company="globex") for i in range(10)]
    await world.say(*waits, *others)
    async with world.worker(full):
        assert set(await world.results(10)) == {each.id for each in others}
        async with asyncio.timeout(WAIT):
            while full.asked < 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(await world.heard("inference-result")) == 10
        full.room = True
        results = await world.results(15)
    assert all(isinstance(results[each.id], InferenceCompleted) for each in waits)


class StoppedEngine(FaultyEngine):
    """Fault: the engine's thread has ended."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        super().__init__(engine)
        self.stopped = False

    def alive(self) -> bool:
        return not self.stopped

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        self.stopped = True
        return Failure(id=question.id, reason="engine_stopped", detail="a fault of the test", again=True)


async def test_a_stopped_engine_ends_the_worker_and_leaves_every_request_to_the_next(
    engine: EmbeddedEngine, world: World
) -> None:
    asked = [request(f"{i}", company=f"c{i}") for i in range(5)]
    await world.say(*asked)
    with pytest.raises(EngineStopped, match="stays in the log"):
        async with world.worker(StoppedEngine(engine)) as running:
            await asyncio.wait_for(asyncio.shield(running), WAIT)
    assert not await world.heard("inference-result")
    async with world.worker(engine):
        results = await world.results(5)
    assert all(isinstance(each, InferenceCompleted) for each in results.values())


# Brokers take no more.
NEARLY_AN_HOUR_AHEAD = int(time.time() * 1000) + 3_000_000


@pytest.mark.parametrize("timestamp", [0, 1, NEARLY_AN_HOUR_AHEAD], ids=["0", "1", "ahead"])
async def test_no_timestamp_of_a_producer_decides_what_is_remembered(
    engine: EmbeddedEngine, world: World, timestamp: int
) -> None:
    asked = [request(f"{i}?") for i in range(4)]
    forgetful = World(ForgetfulLog(world.log), world.names)  # type: ignore[arg-type]
    await world.log.append([to_outgoing(each, world.names)._replace(timestamp=timestamp) for each in asked])
    for _ in range(2):
        async with forgetful.worker(engine):
            await world.results(4)
            last = request(f"{len(await world.heard('inference-request'))} more?")
            await world.say(last)
            asked.append(last)
            assert set(await world.results(len(asked))) == {each.id for each in asked}


def writable(event: Event, names: TopicNames) -> bool:
    try:
        to_outgoing(event, names)
    except Unusable:
        return False
    return True


async def test_odd_adapter_events_are_ignored_and_end_nothing(
    bench: Workbench, engine: EmbeddedEngine, world: World
) -> None:
    good = bench.adapter("acme/good", seed=2)
    event = ready_event(good)
    odd: list[dict[str, Any]] = [
        *(
            {"adapter": name}
            for name in ("acme/..", "acme/../x", "acme", "acme/", "/good", "acme/a/b", "../acme", "acme/a b")
        ),
        *({"adapter_version": version} for version in (0, -1, -(2**31))),
        *({"sha256": word} for word in ("", "../../x", "G" * 64, "a" * 63, "A" * 64)),
        {"base_sha256": "x" * 10_000},
        {"company": "globex"},
    ]
    strange = [msgspec.structs.replace(event, id=f"odd-{i}", **changes) for i, changes in enumerate(odd)]
    harmless = msgspec.structs.replace(event, id="deep", identity="[" * 100_000, uri="file:///etc/passwd")
    strange = [each for each in strange if writable(each, world.names)]
    assert len(strange) > 5
    await world.say(*strange, *filter(lambda each: writable(each, world.names), [harmless]), event)
    asked = request("There?", "acme/good")
    await world.say(asked)
    async with world.worker(engine) as running:
        await world.say(*(msgspec.structs.replace(each, id=f"again-{each.id}") for each in strange))
        answer = (await world.results(1))[asked.id]
        assert not running.done()
    assert isinstance(answer, InferenceCompleted) and answer.text == bench.peft(good, ask("There?"))
    assert engine.known() == (good.key,)
