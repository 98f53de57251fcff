"""The port to an engine, as agents are asked through it: by role, a bounded number at once, each one counted."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import msgspec

from gpu_workers.refused import EngineStopped, QueueFull, UnknownAdapter
from gpu_workers.serve.port import (
    AdapterKey,
    AdapterSpec,
    Answer,
    EngineStats,
    Failure,
    InferenceEngine,
    OnSnippet,
    Outcome,
    Question,
    Resident,
    Snippet,
)
from gpu_workers.serve.seen import Seen
from projections.rollouts import Rollout
from rillfold.lorax.errors import UnknownRole
from rillfold.lorax.roles import LoRAxAdapterRegistry


class RoleTally(msgspec.Struct, kw_only=True):
    """What a role, or the base, was asked so far."""

    requests: int = 0
    failures: int = 0
    """Without an answer, whatever the reason; also those that the caller left."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From question to outcome, added up."""
    last_used: float | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def ended(self, outcome: Outcome | None, seconds: float) -> None:
        self.seconds += seconds
        self.last_used = time.time()
        if isinstance(outcome, Answer):
            self.prompt_tokens += outcome.prompt_tokens
            self.cached_tokens += outcome.cached_tokens
            self.completion_tokens += outcome.completion_tokens
        else:
            self.failures += 1


class AgentsEngine:
    """An adapter is known by its role, and served in the version that is registered now. Nobody else's name is the
    base's: it is a Failure that names the roles there are."""

    def __init__(self, engine: InferenceEngine, registry: LoRAxAdapterRegistry, at_once: int) -> None:
        self._engine, self._registry = engine, registry
        self._room = asyncio.Semaphore(at_once)
        self._shut = False
        self._none_under_way = asyncio.Event()
        self._none_under_way.set()
        self.under_way = 0
        self.most_running = 0
        """Questions that had begun to be answered, and had not been told their end, at one time."""
        self.unknown = 0
        """Questions for roles that nobody has."""
        self.asked: defaultdict[str, RoleTally] = defaultdict(RoleTally)

    @property
    def model(self) -> str:
        return self._engine.model

    @property
    def base_sha256(self) -> str:
        return self._engine.base_sha256

    def announce(self, spec: AdapterSpec) -> None:
        self._engine.announce(spec)

    def obey(self, rollout: Rollout) -> None:
        self._engine.obey(rollout)

    async def load(self, spec: AdapterSpec) -> None:
        await self._engine.load(spec)

    async def unload(self, name: str, version: int | None = None) -> None:
        await self._engine.unload(name, version)

    def alive(self) -> bool:
        return self._engine.alive()

    def known(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        return tuple(map(self._registry.adapter_of, self._registry.roles()))

    def answering(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        return self.known()

    def found(self, name: str, version: int | None) -> AdapterKey | None:
        return next((key for key in self.known() if key.name == name and version in (None, key.version)), None)

    def resident(self) -> tuple[Resident, ...]:
        return self._engine.resident()

    def stats(self) -> EngineStats:
        return self._engine.stats()

    @property
    def seen(self) -> Seen:
        return self._engine.seen

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        """Who finds no room is told so: a client of the port asks again by itself."""
        if self._room.locked():
            return _failure(question, QueueFull.reason, "as many questions as may are under way; ask again.", True)
        return await self.in_turn(question, on_snippet)

    async def in_turn(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        """Who finds no room waits for it."""
        self.under_way += 1
        self._none_under_way.clear()
        try:
            return await self._counted(question, on_snippet)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._none_under_way.set()

    def shut(self) -> None:
        """What the engine has not begun is refused from now on."""
        self._shut = True

    async def emptied(self, seconds: float) -> bool:
        """True: nothing is under way any more."""
        try:
            await asyncio.wait_for(self._none_under_way.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _counted(self, question: Question, on_snippet: OnSnippet | None) -> Outcome:
        if question.adapter is not None and question.adapter not in self._registry.roles():
            self.unknown += 1
            why = str(UnknownRole(question.adapter, self._registry.roles()))
            return _failure(question, UnknownAdapter.reason, why, False)
        asked, began, outcome = self.asked[question.adapter or self.model], time.monotonic(), None
        asked.requests += 1
        try:
            async with self._room:
                outcome = await self._of_now(question, on_snippet)
            return outcome
        finally:
            asked.ended(outcome, time.monotonic() - began)

    async def _of_now(self, question: Question, on_snippet: OnSnippet | None) -> Outcome:
        if self._shut:
            return _failure(question, EngineStopped.reason, "the server stops; ask again when it is started.", True)
        if question.adapter is not None and question.version is None:
            version = self._registry.adapter_of(question.adapter).version
            question = msgspec.structs.replace(question, version=version)
        return await self._seen(question, on_snippet)

    async def _seen(self, question: Question, on_snippet: OnSnippet | None) -> Outcome:
        """How many run at once is looked at when a row begins to speak, and when it has ended."""
        silent = True

        def hear(piece: Snippet) -> None:
            nonlocal silent
            if silent:
                self._look(0)
            silent = False
            if on_snippet is not None:
                on_snippet(piece)

        outcome = await self._engine.answer(question, hear)
        if isinstance(outcome, Answer):
            self._look(1)
        return outcome

    def _look(self, and_this: int) -> None:
        self.most_running = max(self.most_running, self._engine.stats().running + and_this)


def _failure(question: Question, reason: str, detail: str, again: bool) -> Failure:
    return Failure(id=question.id, reason=reason, detail=detail, again=again)
