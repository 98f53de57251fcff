"""The one fake model: says what it was given to say. And a real one with a fault in front of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import msgspec

from gpu_workers.serve.port import (
    Answer,
    Chance,
    Choice,
    Failure,
    InferenceEngine,
    MustCall,
    MustFit,
    OnSnippet,
    Outcome,
    Question,
    Snippet,
)
from gpu_workers.serve.seen import Seen
from schemas.company import ToolUse

LETTERS = 3


class FakeEngine:
    """Answers one question after another, a few letters at a time, once it is open; some it never answers."""

    model = "base"

    def __init__(
        self, says: Answer | None = None, never: Callable[[Question], bool] = lambda _: False, shut: bool = False
    ) -> None:
        self._says, self._never, self._gate = says, never, asyncio.Event()
        self.asked: list[Question] = []
        self.tokens = 0
        self.seen = Seen()
        if not shut:
            self.open()

    def open(self) -> None:
        self._gate.set()

    def shut(self) -> None:
        self._gate.clear()

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        self.asked.append(question)
        try:
            async with asyncio.timeout(question.within):
                await asyncio.sleep(0)  # a time that is over already is noticed at the first wait
                return await self._answer(question, on_snippet)
        except TimeoutError:
            return Failure(id=question.id, reason="too_late", detail=f"not within {question.within} s")

    async def _answer(self, question: Question, on_snippet: OnSnippet | None) -> Outcome:
        await self._gate.wait()
        if self._never(question):
            await asyncio.Event().wait()
        self.tokens += 1
        said = fake_held_to(question, self._says or yes(question))
        if on_snippet:
            for n, start in enumerate(range(0, len(said.text), LETTERS)):
                on_snippet(Snippet(said.text[start : start + LETTERS], said.choices[n : n + 1]))
                await asyncio.sleep(0)
        return said

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(tokens=self.tokens)

    def announce(self, _spec: object) -> None:
        return None

    def obey(self, _rollout: object) -> None:
        return None

    def alive(self) -> bool:
        return True

    def known(self, _company: object = None) -> list[Any]:
        return []

    def answering(self, _company: object = None) -> list[Any]:
        return []

    def found(self, _name: str, _version: int | None) -> None:
        return None


def yes(question: Question) -> Answer:
    return Answer(
        id=question.id, text="yes", content="yes", finish_reason="stop", model="base", adapter=None,
        prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def fake_held_to(question: Question, says: Answer) -> Answer:
    """A model's work without one: the form first, then the stops, then a made-up chance for each few letters."""
    if isinstance(question.must, MustCall):
        says = _fake_call(question, question.must.tool, says)
    elif isinstance(question.must, MustFit):
        text = json.dumps(_fake_fit(json.loads(question.must.schema)))
        says = msgspec.structs.replace(says, text=text, content=text, finish_reason="stop")
    if cuts := [place for stop in question.stop if (place := says.text.find(stop)) >= 0]:
        text = says.text[: min(cuts)]
        says = msgspec.structs.replace(says, text=text, content=text, finish_reason="stop")
    if question.logprobs is not None:
        tokens = [says.text[start : start + LETTERS].encode() for start in range(0, len(says.text), LETTERS)]
        says = msgspec.structs.replace(says, choices=tuple(_fake_choice(token, question.logprobs) for token in tokens))
    return says


def _fake_call(question: Question, tool: str | None, says: Answer) -> Answer:
    functions = {each["function"]["name"]: each["function"] for each in json.loads(question.tools or "[]")}
    name = tool or next(iter(functions))
    arguments = json.dumps(_fake_fit(functions[name].get("parameters", {"type": "object"})))
    text = f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
    return msgspec.structs.replace(says, text=text, content="", calls=(ToolUse(name=name, arguments=arguments),))


def _fake_fit(schema: dict[str, Any]) -> Any:
    """Of objects with what they require, and plain values."""
    if "enum" in schema:
        return schema["enum"][0]
    plain: dict[str, Any] = {"string": "s", "integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}
    if (kind := schema.get("type", "object")) != "object":
        return plain[kind]
    return {name: _fake_fit(schema["properties"][name]) for name in schema.get("required", ())}


def _fake_choice(token: bytes, likeliest: int) -> Choice:
    """The first is the one that was said; the least likely have a chance of nothing."""
    said = Chance(token=token, logprob=-0.25)
    others = [Chance(token=b"\xff%d" % n, logprob=-inf if n > 3 else -float(n)) for n in range(1, likeliest)]
    return Choice(said=said, likeliest=tuple([said, *others][:likeliest]))


class FaultyEngine:
    """The embedded engine; whoever inherits says what goes wrong."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
