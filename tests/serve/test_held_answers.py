"""Answers held to a form, in the engine: what each costs falls on whoever asked for it, and its chances are its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.forms import form as form_module
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, Failure, MustFit
from gpu_workers.serve.schedule.rows import Limits
from tests.support.workbench import CPU, Workbench, ask

KIND = {"type": "object", "properties": {"kind": {"enum": ["refund", "lookup"]}}, "required": ["kind"]}


@pytest.fixture
async def engine(bench: Workbench) -> AsyncIterator[EmbeddedEngine]:
    serving = EngineSetup(device=CPU, limits=Limits(rows=8, waiting=64), capacity=3, company_tokens=10_000)
    async with embedded(str(bench.base), bench.root / "cache", serving) as engine:
        yield engine


async def test_every_token_of_a_form_has_its_own_chances(engine: EmbeddedEngine) -> None:
    must = MustFit(schema=json.dumps(KIND))
    answer = await engine.answer(ask("Refund 12", must=must, logprobs=2, max_tokens=60))
    assert isinstance(answer, Answer) and len(answer.choices) == answer.completion_tokens
    text = b"".join(choice.said.token for choice in answer.choices).decode()
    assert text.removesuffix("<|im_end|>") == answer.text and json.loads(answer.text)["kind"] in ("refund", "lookup")
    for choice in answer.choices:
        alike = [chance.logprob for chance in choice.likeliest if chance.token == choice.said.token]
        assert alike in ([], [choice.said.logprob])


async def test_who_leaves_while_its_form_is_made_has_paid_and_is_counted_until_the_end(
    engine: EmbeddedEngine, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And adapters, and other companies, do not wait behind it."""
    began, go = threading.Semaphore(0), threading.Event()
    real = form_module._compiled

    def slow(*how: Any) -> Any:
        began.release()
        assert go.wait(30)
        return real(*how)

    monkeypatch.setattr(form_module, "_compiled", slow)
    schema = MustFit(schema=json.dumps(KIND | {"description": "x" * 4_000}))
    asked = [asyncio.create_task(engine.answer(ask("x", company="evil", must=schema))) for _ in range(12)]
    await asyncio.to_thread(began.acquire, timeout=30)
    for task in asked:
        task.cancel()
    await asyncio.sleep(0.05)
    assert [task.done() for task in asked].count(False) == 1 == engine.stats().waiting
    assert not began.acquire(blocking=False)  # one text is made once
    spec = bench.adapter("victim/ops", seed=1)
    engine.announce(spec)
    assert isinstance(await engine.answer(ask("Hi", "victim/ops", company="victim")), Answer)
    long = "word " * 4_000
    told = await engine.answer(ask(long, company="victim"))
    assert isinstance(told, Failure) and told.reason == "prompt_too_long"
    go.set()
    await asyncio.gather(*asked, return_exceptions=True)
    assert engine.stats().waiting == 0
    assert engine._questions._tokens.left("evil", engine.seen.clock()) < 10_000 - 500


async def test_a_shared_reading_that_fails_names_each_ones_own_adapter(
    engine: EmbeddedEngine, bench: Workbench
) -> None:
    acme = spoiled(bench.adapter("acme/secret-project", seed=3))
    globex = msgspec.structs.replace(acme, key=AdapterKey("globex/ops", 1))
    engine.announce(acme)
    engine.announce(globex)
    asked = [ask("x", spec.key.name, company=spec.key.name.partition("/")[0]) for spec in (acme, globex)]
    for question, outcome in zip(asked, await asyncio.gather(*map(engine.answer, asked)), strict=True):
        assert isinstance(outcome, Failure) and f"adapter {question.adapter}" in outcome.detail
        assert ("secret" in outcome.detail) is (question.company == "acme")


async def test_what_was_announced_meanwhile_is_not_refused_for_what_was_there_before(
    engine: EmbeddedEngine, bench: Workbench
) -> None:
    good, bad = bench.adapter("acme/race", 1, 5), spoiled(bench.adapter("acme/race", 1, 7))
    engine.announce(bad)
    first = asyncio.create_task(engine.answer(ask("x", "acme/race")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    engine.announce(good)
    for outcome in (await first, await engine.answer(ask("x", "acme/race"))):
        assert isinstance(outcome, Answer) and outcome.text == bench.peft(good, ask("x", "acme/race"))
    engine.announce(bad)
    loading = asyncio.create_task(engine.load(bad))
    await asyncio.sleep(0)
    engine.announce(good)
    with pytest.raises(UnusableAdapter):
        await loading
    assert isinstance(await engine.answer(ask("x", "acme/race")), Answer)


async def test_the_chances_of_an_answer_are_bounded(engine: EmbeddedEngine) -> None:
    outcome = await engine.answer(ask("x", logprobs=20, max_tokens=2_000))
    assert isinstance(outcome, Failure) and outcome.reason == "bad_question"
    assert "42000, and not up to 40000: ask for less" in outcome.detail


def spoiled(spec: AdapterSpec) -> AdapterSpec:
    """One bit of its file is not as its hash says."""
    assert spec.folder is not None
    path = spec.folder / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    return spec
