"""The one fake model: says what it was given to say. And a real one with a fault in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gpu_workers.serve.port import Answer, InferenceEngine, OnPiece, Outcome, Piece, Question


class FakeEngine:
    """Answers one question after another, a few letters at a time, once it is open; some it never answers."""

    model = "base"

    def __init__(
        self, says: Answer | None = None, never: Callable[[Question], bool] = lambda _: False, shut: bool = False
    ) -> None:
        self._says, self._never, self._gate = says, never, asyncio.Event()
        self.asked: list[Question] = []
        self.tokens = 0
        if not shut:
            self.open()

    def open(self) -> None:
        self._gate.set()

    async def answer(self, question: Question, on_piece: OnPiece | None = None) -> Outcome:
        self.asked.append(question)
        await self._gate.wait()
        if self._never(question):
            await asyncio.Event().wait()
        self.tokens += 1
        said = self._says or yes(question)
        if on_piece:
            for start in range(0, len(said.text), 3):
                on_piece(Piece(said.text[start : start + 3]))
                await asyncio.sleep(0)
        return said

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(tokens=self.tokens)

    def announce(self, _spec: object) -> None:
        return None

    def alive(self) -> bool:
        return True

    def known(self) -> list[Any]:
        return []


def yes(question: Question) -> Answer:
    return Answer(
        id=question.id, text="yes", content="yes", finish_reason="stop", model="base", adapter=None,
        prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


class FaultyEngine:
    """The embedded engine; whoever inherits says what goes wrong."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
