"""Answers held to a form, in the engine: what each costs falls on whoever asked for it, and its chances are its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gpu_workers.serve.engine.rows import Limits
from gpu_workers.serve.engines.embedded import EmbeddedEngine
from gpu_workers.serve.engines.start import EngineSetup, embedded
from gpu_workers.serve.port import Answer, MustFit
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
