"""The behaviour that any inference engine owes, on the embedded one: the named adapter's answer or a Failure."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import msgspec
import pytest

from gpu_workers.serve.errors import BaseMismatch, UnknownAdapter, UnusableAdapter
from gpu_workers.serve.port import AdapterKey, Answer, Failure, InferenceEngine, Outcome
from gpu_workers.serve.schedule import Limits
from gpu_workers.serve.start import Serving, embedded
from tests.serve.making import CPU, Workbench, ask, make_workbench

TOOLS = json.dumps([{"name": "lookup", "description": "Find.", "parameters": {"type": "object"}}])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return make_workbench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[InferenceEngine]:
    serving = Serving(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        yield engine


def said(outcome: Outcome) -> str:
    assert isinstance(outcome, Answer), outcome
    return outcome.text


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return outcome.reason


async def test_each_row_of_a_batch_is_answered_by_its_own_adapter(bench: Workbench, engine: InferenceEngine) -> None:
    specs = [bench.adapter(f"acme/role{i}", seed=i, r=4 * (i + 1)) for i in range(3)]
    for spec in specs:
        await engine.load(spec)
    rows = [None, *specs, *specs, None]
    names = [spec.key.name if spec else None for spec in rows]
    questions = [ask(f"Number {i}?", name, tools=TOOLS) for i, name in enumerate(names)]
    outcomes = await engine.generate(questions)
    expected = [bench.peft(spec, question) for spec, question in zip(rows, questions, strict=True)]
    assert [said(outcome) for outcome in outcomes] == expected
    assert len(set(expected)) > 4, "the adapters must differ for this to mean anything"


async def test_what_is_not_there_is_refused_and_never_the_base(bench: Workbench, engine: InferenceEngine) -> None:
    await engine.load(bench.adapter("acme/sales", seed=1))
    outcomes = await engine.generate(
        [ask("Hi", "acme/nobody"), ask("Hi", "acme/sales", 7), ask("Hi", ""), ask("Hi", "acme/sales")]
    )
    assert [reason(each) for each in outcomes[:3]] == ["unknown_adapter", "unknown_adapter_version", "unknown_adapter"]
    assert said(outcomes[3])


async def test_an_adapter_of_another_base_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = msgspec.structs.replace(bench.adapter("acme/moved"), base_sha256="0" * 64)
    with pytest.raises(BaseMismatch):
        await engine.load(spec)
    assert reason(await engine.answer(ask("Hi", "acme/moved"))) == "base_mismatch"


async def test_a_flipped_byte_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = bench.adapter("acme/flipped", seed=3)
    copy = bench.root / "flipped"
    shutil.copytree(spec.folder, copy)
    tensors = copy / "adapter_model.safetensors"
    body = bytearray(tensors.read_bytes())
    body[-1] ^= 1
    tensors.write_bytes(body)
    with pytest.raises(UnusableAdapter, match="altered"):
        await engine.load(msgspec.structs.replace(spec, folder=copy))
    assert reason(await engine.answer(ask("Hi", "acme/flipped"))) == "unusable_adapter"


async def test_an_adapter_that_fits_nowhere_is_refused(bench: Workbench, engine: InferenceEngine) -> None:
    spec = bench.adapter("acme/deep", seed=5, layers_to_transform=[1], layers_pattern="layers")
    config = bench.root / "deep"
    shutil.copytree(spec.folder, config)
    tensors = config / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes().replace(b"layers.1.", b"layers.9."))
    settings = config / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"layers_to_transform": [9]}))
    with pytest.raises(UnusableAdapter, match="no such module"):
        await engine.load(msgspec.structs.replace(spec, folder=config, sha256=None))


async def test_a_newer_version_takes_over_and_the_old_one_can_still_be_named(
    bench: Workbench, engine: InferenceEngine
) -> None:
    old, new = bench.adapter("acme/ops", 1, seed=11), bench.adapter("acme/ops", 2, seed=12)
    await engine.load(old)
    question = ask("Who?", "acme/ops", max_tokens=40)
    started = asyncio.Event()
    in_flight = asyncio.create_task(engine.answer(question, lambda _: started.set()))
    await started.wait()
    await engine.load(new)
    later = await engine.answer(question)
    first = await in_flight
    assert (said(first), said(later)) == (bench.peft(old, question), bench.peft(new, question))
    assert isinstance(first, Answer) and isinstance(later, Answer)
    assert (first.adapter, later.adapter) == (AdapterKey("acme/ops", 1), AdapterKey("acme/ops", 2))
    assert said(await engine.answer(ask("Who?", "acme/ops", 1, max_tokens=40))) == said(first)


async def test_more_adapters_than_memory_come_and_go_and_stay_right(bench: Workbench, engine: InferenceEngine) -> None:
    specs = [bench.adapter(f"acme/many{i}", seed=20 + i, r=8) for i in range(6)]
    for spec in specs:
        await engine.load(spec)
    for _ in range(2):
        questions = [ask("Who?", spec.key.name) for spec in specs]
        outcomes = await engine.generate(questions)
        assert [said(each) for each in outcomes] == [bench.peft(*pair) for pair in zip(specs, questions, strict=True)]
    assert len(engine.resident()) <= 3
    assert engine.stats().evictions > 3 and all(each.in_use == 0 for each in engine.resident())


async def test_an_unloaded_adapter_is_refused_and_its_running_answer_ends(
    bench: Workbench, engine: InferenceEngine
) -> None:
    spec = bench.adapter("acme/gone", seed=31)
    await engine.load(spec)
    started = asyncio.Event()
    question = ask("Who?", "acme/gone", max_tokens=40)
    in_flight = asyncio.create_task(engine.answer(question, lambda _: started.set()))
    await started.wait()
    await engine.unload("acme/gone")
    assert reason(await engine.answer(ask("Who?", "acme/gone"))) == "unknown_adapter"
    assert said(await in_flight) == bench.peft(spec, question)
    with pytest.raises(UnknownAdapter):
        await engine.unload("acme/gone")


async def test_pieces_add_up_to_the_text(bench: Workbench, engine: InferenceEngine) -> None:
    await engine.load(bench.adapter("acme/loud", seed=41))
    pieces: list[str] = []
    outcome = await engine.answer(ask("Sing!", "acme/loud", max_tokens=60), pieces.append)
    assert "".join(pieces) == said(outcome)
    assert len(pieces) > 1


async def test_the_same_seed_draws_the_same_answer_whoever_else_is_in_the_batch(engine: InferenceEngine) -> None:
    drawn = ask("Tell me.", temperature=1.0, seed=7, max_tokens=16)
    alone = said(await engine.answer(drawn))
    crowd = await engine.generate([ask(f"Noise {i}", temperature=1.0, seed=i) for i in range(5)] + [drawn])
    assert said(crowd[-1]) == alone
    other = said(await engine.answer(ask("Tell me.", temperature=1.0, seed=8, max_tokens=16)))
    assert other != alone


async def test_a_cancelled_question_leaves_the_batch(engine: InferenceEngine) -> None:
    started = asyncio.Event()
    long = asyncio.create_task(engine.answer(ask("Go on", max_tokens=900), lambda _: started.set()))
    await started.wait()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert said(await engine.answer(ask("And now?"))) is not None
    assert engine.stats().running + engine.stats().waiting == 0


async def test_what_cannot_be_read_or_rendered_is_refused(engine: InferenceEngine) -> None:
    outcomes = await engine.generate([ask("word " * 3000), ask("Hi", tools="no json"), ask("Hi")])
    assert [reason(each) for each in outcomes[:2]] == ["prompt_too_long", "bad_question"]
    assert said(outcomes[2]) is not None


async def test_a_full_engine_says_so(engine: InferenceEngine) -> None:
    outcomes = await engine.generate([ask(f"{i}") for i in range(70)])
    reasons = [each.reason for each in outcomes if isinstance(each, Failure)]
    assert reasons == ["queue_full"] * 6
