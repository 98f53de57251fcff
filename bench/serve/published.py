"""Adapters as the worker finds them: in a store, by their hash; and questions to them."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from bench.serve.scene import Scene
from gpu_workers.adapters.store import Facts, FolderStore
from gpu_workers.serve.port import AdapterKey, AdapterSpec, Answer, InferenceEngine, Question, Snippet
from schemas.company import Message

COMPANY = "bench"


class Published:
    def __init__(self, scene: Scene, folder: Path) -> None:
        self.store = FolderStore(folder)
        self._facts = Facts(
            company=COMPANY, base_model=scene.base, base_sha256=scene.plain.sha256, tools_in_prompt=True
        )

    def put(self, adapter: Path, name: str, version: int = 1) -> AdapterSpec:
        sha256 = self.store.put(adapter, self._facts)
        return AdapterSpec(key=AdapterKey(f"{COMPANY}/{name}", version), sha256=sha256)


def question(text: str, adapter: str | None, new: int, version: int | None = None) -> Question:
    message = Message(role="user", content=text)
    return Question(id=text, messages=(message,), adapter=adapter, version=version, max_tokens=new)


class Asked:
    """What came of one question, and when."""

    def __init__(self, engine: InferenceEngine, asked: Question) -> None:
        self._engine, self._asked = engine, asked
        self.first = 0.0

    async def answer(self) -> Answer:
        began = time.perf_counter()

        def hear(_: Snippet) -> None:
            self.first = self.first or time.perf_counter() - began

        outcome = await self._engine.answer(self._asked, hear)
        if not isinstance(outcome, Answer):
            raise SystemExit(f"{self._asked.adapter} was not answered: {outcome.reason}: {outcome.detail}")
        self.first = self.first or time.perf_counter() - began
        return outcome


async def closed_loop(engine: InferenceEngine, questions: Sequence[Question], in_flight: int) -> list[Asked]:
    """So many at any time, until all are answered."""
    asked = [Asked(engine, each) for each in questions]
    line = iter(asked)

    async def client() -> None:
        for each in line:
            await each.answer()

    await asyncio.gather(*(client() for _ in range(in_flight)))
    return asked
