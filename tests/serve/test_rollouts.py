"""Who answers for a name: what was promoted last and is not withdrawn, from the next request on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest

from gpu_workers.refused import NotPromoted, Refused, UnknownVersion, UnusableAdapter, WithdrawnVersion
from gpu_workers.serve import follower
from gpu_workers.serve.catalogue import Catalogue
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.follower import AdapterFollower
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, Failure
from gpu_workers.serve.schedule.rows import Limits
from projections.rollouts import Rollout
from rillfold.http.operator import COMPANY_HEADER
from rillfold.v1 import routes
from schemas.adapters import AdapterReady, RolloutDecided
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.port import EventLog
from tests.serve.test_inference import World, ready_event, request
from tests.support.workbench import CPU, Workbench, ask

NAME = "acme/ops"


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[EmbeddedEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=4, waiting=8))
    async with embedded(str(bench.base), bench.root / "cache", serving, bench.store) as engine:
        yield engine


@pytest.fixture
async def world(log: EventLog, names: TopicNames) -> World:
    world = World(log, names)
    await world.create()
    return world


def ready(bench: Workbench, version: int, promoted: bool = True) -> AdapterReady:
    return msgspec.structs.replace(ready_event(bench.adapter(NAME, version, seed=2 * version)), promoted=promoted)


def decided(version: int, percent: int, n: int = 0) -> RolloutDecided:
    event = f"d-{version}-{percent}-{n}"
    fields: dict[str, Any] = {"id": event, "company": "acme", "time": 1, "correlation": event}
    return RolloutDecided(**fields, adapter=NAME, adapter_version=version, percent=percent, reason="as the test has it")


class Asked:
    """Requests of the log, one after another."""

    def __init__(self, world: World) -> None:
        self._world, self._count = world, 0

    async def who(self, version: int | None = None, *before: RolloutDecided) -> int | str:
        """The version that answered, or why none did. What is said before, is said just before."""
        self._count += 1
        asked = request(f"Who is it at {self._count}?", NAME, adapter_version=version)
        await self._world.say(*before)
        await self._world.say(asked)
        found = (await self._world.results(self._count))[asked.id]
        if isinstance(found, InferenceFailed):
            return found.reason
        assert isinstance(found, InferenceCompleted) and found.adapter_version is not None
        return found.adapter_version


async def test_a_decision_holds_from_the_next_request_on(
    bench: Workbench, engine: EmbeddedEngine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOOK_SECONDS", 3600.0)  # nobody comes by in time
    asked = Asked(world)
    await world.say(ready(bench, 1), ready(bench, 2, promoted=False), ready(bench, 3, promoted=False))
    async with world.worker(engine):
        assert (await asked.who(), await asked.who(2)) == (1, 2)
        assert await asked.who(None, decided(2, 100)) == 2
        assert await asked.who(None, decided(9, 100)) == 2, "there is no 9"
        assert await asked.who(2, decided(2, 0)) == "adapter_withdrawn"
        assert await asked.who() == 1
        assert await asked.who(None, decided(1, 0)) == "not_promoted", "3 was never promoted"
        assert await asked.who(3) == 3
    async with world.worker(engine):
        assert [await asked.who(), await asked.who(1), await asked.who(3)] == ["not_promoted", "adapter_withdrawn", 3]
        assert await asked.who(None, decided(2, 100, 1)) == 2
        assert await asked.who(1) == "adapter_withdrawn"


async def test_another_worker_knows_all_that_was_decided_before_it_began(
    bench: Workbench, engine: EmbeddedEngine
) -> None:
    world = World(MemoryLog(), TopicNames())
    await world.create()
    await world.say(ready(bench, 1), ready(bench, 2), ready(bench, 3, promoted=False), decided(2, 0))
    await AdapterFollower(world.log, world.names, engine).catch_up()
    assert engine.answering() == (AdapterKey(NAME, 1),)
    assert engine.known() == (AdapterKey(NAME, 1), AdapterKey(NAME, 3))


async def test_an_answer_under_way_finishes_and_the_next_one_is_refused(
    bench: Workbench, engine: EmbeddedEngine
) -> None:
    for version in (1, 2):
        await engine.load(bench.adapter(NAME, version, seed=2 * version))
    engine.obey(Rollout(company="acme", adapter=NAME, newest=2, stable=2, promoted=(1, 2)))
    after = Rollout(company="acme", adapter=NAME, newest=2, stable=1, promoted=(1,), withdrawn=(2,))
    begun = await engine.answer(ask("Who?", NAME, max_tokens=24), lambda _: engine.obey(after))
    assert isinstance(begun, Answer) and begun.adapter == AdapterKey(NAME, 2)
    assert begun.text == bench.peft(bench.adapter(NAME, 2, seed=4), ask("Who?", max_tokens=24))
    now, named = await asyncio.gather(engine.answer(ask("Who?", NAME)), engine.answer(ask("Who?", NAME, 2)))
    assert isinstance(now, Answer) and now.adapter == AdapterKey(NAME, 1)
    assert isinstance(named, Failure) and named.reason == "adapter_withdrawn" and not named.again
    assert AdapterKey(NAME, 2) not in {each.key for each in engine.resident()}, "its memory is others'"


async def test_of_two_that_say_they_are_one_version_the_first_answers(bench, engine, world) -> None:
    """As every row has it: its run, its card, its promotion."""
    first, second = bench.adapter(NAME, 1, seed=2), bench.adapter(NAME, 1, seed=4)
    await world.say(ready_event(first), msgspec.structs.replace(ready_event(second), id="another", promoted=False))
    await AdapterFollower(world.log, world.names, engine).catch_up()
    question = ask("Hi", NAME, 1, max_tokens=40)
    assert bench.peft(first, question) != bench.peft(second, question)
    assert (await engine.answer(question)).text == bench.peft(first, question)


async def test_what_is_withdrawn_is_no_model_and_the_error_says_whom_to_ask(
    bench: Workbench, engine: EmbeddedEngine, client: openai.AsyncOpenAI
) -> None:
    for version in (1, 2, 10):
        await engine.load(bench.adapter(NAME, version, seed=2 * version))
    engine.obey(Rollout(company="acme", adapter=NAME, newest=10, stable=1, promoted=(1,), withdrawn=(2,)))
    listed = (await client.models.list()).data
    assert [each.id for each in listed] == [engine.model, NAME, f"{NAME}@1", f"{NAME}@10"]
    assert listed[1].to_dict()["version"] == 1
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2}
    with pytest.raises(openai.ConflictError) as withdrawn:
        await client.chat.completions.create(model=f"{NAME}@2", **given)
    assert withdrawn.value.code == "adapter_withdrawn" and "Version 1 answers" in withdrawn.value.message
    engine.obey(Rollout(company="acme", adapter=NAME, newest=10, withdrawn=(2,)))
    assert NAME not in [each.id for each in (await client.models.list()).data]
    with pytest.raises(openai.ConflictError) as nobody:
        await client.chat.completions.create(model=NAME, **given)
    assert nobody.value.code == "not_promoted" and f"{NAME}@10: 1, 10" in nobody.value.message


def catalogue(*versions: int, refused: int | None = None, **rollout: Any) -> Catalogue:
    made = Catalogue()
    for version in versions:
        made.add(AdapterSpec(key=AdapterKey(NAME, version)))
    made.obey(Rollout(company="acme", adapter=NAME, newest=9, **rollout))
    if refused is not None:
        made.refuse(made.held(AdapterKey(NAME, refused)), UnusableAdapter(f"{refused} is damaged"), 0.0)
    return made


@pytest.mark.parametrize(
    ("made", "version", "found"),
    [
        (catalogue(1, 2, 3, promoted=(1, 3)), None, 3),
        (catalogue(1, 2, 3, promoted=(3, 1)), None, 1),
        (catalogue(1, 2, 3, promoted=(1, 7)), None, 1),
        (catalogue(1, 2, 3, promoted=(1, 3), refused=3), None, 1),
        (catalogue(1, 2, 3, promoted=(3,), refused=3), None, UnusableAdapter),
        (catalogue(1, 2, 3, promoted=(3,), refused=3), 2, 2),
        (catalogue(1, 2, 3), None, NotPromoted),
        (catalogue(1, 2, withdrawn=(1, 2)), None, NotPromoted),
        (catalogue(1, 2, promoted=(1,), withdrawn=(2,)), 2, WithdrawnVersion),
        (catalogue(1, 2, promoted=(1,), withdrawn=(2,)), 3, UnknownVersion),
    ],
)
def test_what_cannot_be_served_answers_for_nobody(made: Catalogue, version: int | None, found: Any) -> None:
    if isinstance(found, int):
        assert made.find(NAME, version).key == AdapterKey(NAME, found)
        return
    with pytest.raises(Refused) as error:
        made.find(NAME, version)
    assert type(error.value) is found


def test_without_a_rollout_the_newest_answers() -> None:
    made = Catalogue()
    for version in (1, 10, 2):
        made.add(AdapterSpec(key=AdapterKey(NAME, version)))
    assert made.find(NAME, None).key == AdapterKey(NAME, 10) == next(made.answering())


async def test_a_company_is_told_its_own_models_and_each_by_its_name(
    bench: Workbench, engine: EmbeddedEngine, client: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "LISTED", 3)
    for n in range(1, 7):
        engine.announce(AdapterSpec(key=AdapterKey("acme/old", n)))
    engine.announce(AdapterSpec(key=AdapterKey("globex/one", 1)))

    async def told(company: str, **query: str) -> list[str]:
        page = await client.models.list(extra_headers={COMPANY_HEADER: company}, extra_query=query)
        return [each.id for each in page.data]

    assert await told("globex") == [engine.model, "globex/one", "globex/one@1"]
    assert await told("acme") == [engine.model, "acme/old", "acme/old@4", "acme/old@5", "acme/old@6"]
    assert await told("acme", name="acme/old@1") == ["acme/old@1"]
    for strange in ("globex/one", "globex/one@1", "acme/old@9", "acme/old@01", "acme", ""):
        assert await told("acme", name=strange) == []
    assert await told("acme", name=engine.model) == [engine.model]
    with pytest.raises(openai.BadRequestError):
        await told("../acme")
