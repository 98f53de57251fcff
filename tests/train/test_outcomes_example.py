"""What examples/outcomes.py tells is what happens, and what the workers do where its events stand in a log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import examples.outcomes as example
from gpu_workers.serve.engines.start import EngineSetup, embedded
from processors.answers import ToolCalls, parse
from processors.training.promotion import Verdict
from schemas.adapters import AdapterJudged, AdapterReady
from schemas.company import ConversationIngested, ToolUse
from schemas.envelope import Event
from schemas.inference import InferenceCompleted
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.serve.test_inference import World, request
from tests.support.made import made_once
from tests.support.workbench import CPU
from tests.train.test_trainer import Office, ended, of

ROLE = f"{example.COMPANY}/default"
MEASURED = [wish for wish in example.WISHES if wish.held_out]


class Told(NamedTuple):
    house: example.House
    verdicts: list[Verdict]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Each of its versions is trained once for all tests."""
    house = example.House(tmp_path_factory.mktemp("house"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "run", made_once.run)
        yield Told(house, example.told(house))


def test_the_gate_refuses_a_spoilt_version_and_corrections_mend_the_next(told: Told) -> None:
    half, spoilt, mended = told.verdicts
    assert half.promoted and half.reason == "better"
    assert not spoilt.promoted and spoilt.reason in ("worse", "no_gain")
    assert mended.promoted and mended.reason == "better"


def test_the_habit_is_in_the_log_and_in_no_request_that_is_measured() -> None:
    talks = [event for event in example.with_the_habit() if isinstance(event, ConversationIngested)]
    said = {talk.messages[0].content: talk.messages[1] for talk in talks}
    wrong = [wish for wish in example.WISHES if said[wish.text] != example.call(wish, wish.state)]
    out = [wish for wish in example.WISHES if wish.state == "off" and not wish.held_out]
    assert len(wrong) == len(out) * 2 // 3 and {wish.state for wish in wrong} == {"off"}
    assert not any(wish.held_out for wish in wrong)


class Street(Office):
    """The house's events in a log, with a worker that trains and one that serves."""

    async def hear(self, events: Sequence[Event]) -> tuple[OffsetRange, ...]:
        """Where they stand."""
        topics = ("company-data", "tool-result")
        await self.log.create([TopicSpec(self.names.wire(topic), 4) for topic in topics])
        before = {topic: await self.log.ends(self.names.wire(topic)) for topic in topics}
        await self.log.append([to_outgoing(event, self.names) for event in events])
        after = {topic: await self.log.ends(self.names.wire(topic)) for topic in topics}
        return tuple(
            OffsetRange(topic=topic, partition=partition, start=start, stop=after[topic][partition])
            for topic in topics
            for partition, start in before[topic].items()
        )

    async def train(self, run: str, events: Sequence[Event], select: example.Selection) -> tuple[Any, Any]:
        """What is said of the version that comes of them: the verdict, and that it is ready."""
        ranges = await self.hear(events)
        settings = msgspec.json.encode(msgspec.structs.replace(example.LEARNING, select=select)).decode()
        await self.append(self.request(run, example.COMPANY, settings=settings, ranges=ranges))
        await self.until(self.trainer(floors=example.FLOORS, name=run), ended(run))
        said = [event for event in await self.said("adapter-ready") if getattr(event, "run", "") == run]
        ((verdict,), (ready,)) = of(said, AdapterJudged), of(said, AdapterReady)
        return verdict, ready


class Asked:
    """The wishes that nobody was trained on, one round after another, of the worker that serves."""

    def __init__(self, world: World) -> None:
        self._world, self._count = world, 0

    async def right(self, expected: int, version: int | None = None) -> float:
        """The share that is answered rightly, every one by the expected version."""
        round_ = self._count
        asked = [
            request(wish.text, ROLE, example.COMPANY, id=f"{round_}-{n}", adapter_version=version, max_tokens=64)
            for n, wish in enumerate(MEASURED)
        ]
        self._count += len(asked)
        await self._world.say(*asked)
        answers = await self._world.results(self._count)
        found = [answers[each.id] for each in asked]
        assert {each.adapter_version for each in found if isinstance(each, InferenceCompleted)} == {expected}, found
        wanted = [example.call(wish, wish.state).tool_calls for wish in MEASURED]
        return sum(calls(each) == right for each, right in zip(found, wanted, strict=True)) / len(found)


def calls(answer: Any) -> tuple[ToolUse, ...]:
    said = parse(answer.text)
    found = said.calls if isinstance(said, ToolCalls) else ()
    return tuple(ToolUse(name=each.name, arguments=_plain(each.arguments)) for each in found)


def _plain(arguments: str) -> str:
    return json.dumps(json.loads(arguments), separators=(",", ":"))


async def test_a_spoilt_version_that_a_worker_trains_answers_by_its_number_alone(told: Told, tmp_path: Path) -> None:
    """And each answers the measured requests as rightly as the gate has it."""
    street = Street(MemoryLog(), TopicNames(), tmp_path, Path(told.house.base))
    await street.open()
    world = World(street.log, street.names)
    await world.create()
    verdict, ready = await street.train("half", example.before_the_habit(), example.Selection())
    assert (ready.adapter, ready.adapter_version, ready.promoted) == (ROLE, 1, True)
    assert (verdict.promoted, verdict.reason, verdict.against) == (True, "better", None)
    serving = embedded(told.house.base, tmp_path / "cache", EngineSetup(device=CPU), street.store)
    async with serving as engine, world.worker(engine):
        asked = Asked(world)
        share = await asked.right(1)
        verdict, ready = await street.train("spoilt", example.with_the_habit(), example.Selection(outcomes=False))
        assert (verdict.adapter_version, verdict.against, verdict.promoted) == (2, 1, False)
        assert (ready.adapter_version, ready.promoted, verdict.reason) == (2, False, told.verdicts[1].reason)
        measured = json.loads(verdict.figures)["suites"]["held_out"]
        assert measured["cases"] == measured["paired"] == len(MEASURED)
        assert await asked.right(1) == share == pytest.approx(measured["served"])
        assert await asked.right(2, version=2) == pytest.approx(measured["share"])
