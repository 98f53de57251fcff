"""Names may change what they mean, and share what is the same: an answer is always that of what was loaded last."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import msgspec
import pytest

from gpu_workers.adapters.store import CONFIG
from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.engine.trial import Trial
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, InferenceEngine, Outcome
from tests.support.workbench import CPU, Workbench, ask


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[InferenceEngine]:
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(device=CPU, capacity=3)) as engine:
        yield engine


async def test_names_and_versions_of_one_content_are_read_once(bench: Workbench, engine: InferenceEngine) -> None:
    first = bench.adapter("acme/first", seed=1)
    others = [AdapterKey("acme/first", 2), AdapterKey("acme/other", 1), AdapterKey("acme/third", 1)]
    specs = [first, *(msgspec.structs.replace(first, key=key) for key in others)]
    for spec in specs:
        engine.announce(spec)
    questions = [ask("Hi", spec.key.name, spec.key.version) for spec in specs]
    outcomes = await asyncio.gather(*(engine.answer(question) for question in questions))
    for spec, question, outcome in zip(specs, questions, outcomes, strict=True):
        assert isinstance(outcome, Answer) and outcome.adapter == spec.key
        assert outcome.text == bench.peft(first, question)
    stats = engine.stats()
    assert (stats.loads, stats.resident, stats.known) == (1, 1, 4)
    await engine.unload("acme/first")
    assert (await engine.answer(questions[0])) and engine.stats().resident == 1
    assert {each.key for each in engine.resident()} == set(others[1:])


async def test_a_folder_that_changed_is_what_it_now_is(bench: Workbench, engine: InferenceEngine) -> None:
    """Also where the old one is in use: its own questions end as they began."""
    folder = bench.root / "changing"
    spec = AdapterSpec(key=AdapterKey("acme/changing", 1), folder=folder)
    told: list[asyncio.Task[Outcome]] = []
    expected: list[str] = []
    for seed in (2, 3):
        made = bench.adapter("acme/changing", seed, seed)
        assert made.folder is not None
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made.folder, folder)
        await engine.load(spec)
        question = ask("Hi", "acme/changing", max_tokens=40)
        began = asyncio.Event()
        told.append(asyncio.create_task(engine.answer(question, lambda _, began=began: began.set())))
        await began.wait()
        expected.append(bench.peft(spec, question))
    outcomes = await asyncio.gather(*told)
    assert [isinstance(outcome, Answer) and outcome.text for outcome in outcomes] == expected
    assert expected[0] != expected[1]


async def test_what_was_evicted_and_comes_back_is_not_tried_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash says that it is as it was; a folder has none."""
    tried: list[LoraWeights] = []
    monkeypatch.setattr(Trial, "__call__", lambda _, weights: tried.append(weights))
    specs = [bench.adapter(f"acme/back{i}", seed=i) for i in range(2)]
    folder = msgspec.structs.replace(specs[0], key=AdapterKey("acme/folder", 1), sha256=None)
    async with embedded(str(bench.base), bench.root / "cache", EngineSetup(device=CPU, capacity=1)) as engine:
        for spec in (*specs, *specs, folder, folder):
            await engine.load(spec)
        assert engine.stats().loads == 6 and len(tried) == 4


async def test_a_trigger_beyond_the_vocabulary_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    made = bench.adapter("acme/beyond", seed=1)
    assert made.folder is not None
    folder = shutil.copytree(made.folder, bench.root / "beyond")
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alora_invocation_tokens": [1, 1 << 20]}))
    with pytest.raises(UnusableAdapter, match="switched on by token 1048576"):
        await engine.load(AdapterSpec(key=AdapterKey("acme/beyond", 1), folder=folder))


async def test_an_artifact_answers_for_the_company_that_its_manifest_names_also_where_it_is_in_memory(
    bench: Workbench, engine: InferenceEngine
) -> None:
    own = msgspec.structs.replace(bench.adapter("acme/own", seed=1), company="acme")
    await engine.load(own)
    stolen = msgspec.structs.replace(own, key=AdapterKey("globex/own", 1), company="globex")
    with pytest.raises(UnusableAdapter, match="is of acme, not of globex"):
        await engine.load(stolen)
    assert {each.key for each in engine.resident()} == {own.key}
