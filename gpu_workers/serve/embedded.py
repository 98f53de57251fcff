"""The port over our own engine: adapters are read beside it, one thread steps it, the event loop hears what is said."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpu_workers.chat import Chat
from gpu_workers.serve.adapter_file import LoraWeights
from gpu_workers.serve.catalogue import Catalogue, Residency
from gpu_workers.serve.engine import Engine, LoraRow, Said
from gpu_workers.serve.errors import BadQuestion, EngineStopped, PromptTooLong, QueueFull, UnusableAdapter
from gpu_workers.serve.port import (
    AdapterKey,
    AdapterSpec,
    Answer,
    EngineStats,
    Failure,
    OnText,
    Outcome,
    Question,
    Resident,
)
from gpu_workers.serve.text import TextStream
from processors.answers import ToolCalls, parse
from schemas.errors import Retry, RillfoldError

Read = Callable[[AdapterSpec], LoraWeights]
"""From the store to memory, checked. Raises `Refused`."""


@dataclass
class _Pending:
    """A question that the engine thread works on, as the event loop sees it."""

    row: LoraRow
    done: asyncio.Future[str]
    stream: TextStream
    on_text: OnText | None
    tokens: list[int] = field(default_factory=list)
    shown: int = 0

    def take(self, said: Said) -> None:
        self.tokens.append(said.token)
        if self.on_text and not said.finish and (piece := self.stream.push(said.token)):
            self.shown += len(piece)
            self.on_text(piece)
        if said.finish and not self.done.done():
            self.done.set_result(said.finish)

    def flush(self, text: str) -> None:
        """What was held back: the end of the whole text."""
        if self.on_text and text[self.shown :]:
            self.on_text(text[self.shown :])


@dataclass(frozen=True)
class Base:
    """The model that all adapters stand on."""

    name: str
    sha256: str
    context: int


class EmbeddedEngine:
    """`async with EmbeddedEngine(...)`: all calls from that event loop; the engine has a thread of its own."""

    def __init__(
        self, make_engine: Callable[[], Engine], base: Base, chat: Chat, read: Read, *, capacity: int, waiting: int
    ) -> None:
        self._base, self._chat, self._read, self._waiting = base, chat, read, waiting
        self._make_engine = make_engine
        self._catalogue = Catalogue()
        self._residency: Residency[LoraWeights] = Residency(capacity)
        self._reading: dict[AdapterKey, asyncio.Task[LoraWeights]] = {}
        self._pending: dict[int, _Pending] = {}
        self._tickets = itertools.count()
        self._tokens = 0
        self._orders: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def model(self) -> str:
        return self._base.name

    @property
    def base_sha256(self) -> str:
        return self._base.sha256

    async def __aenter__(self) -> EmbeddedEngine:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)
        self._fail("the engine was stopped")

    def announce(self, spec: AdapterSpec) -> None:
        self._catalogue.add(spec)

    async def load(self, spec: AdapterSpec) -> None:
        self._residency.drop(spec.key)
        try:
            await self._weights(spec)
        except UnusableAdapter as error:
            self._catalogue.refuse(spec.key, error)
            raise
        self._catalogue.add(spec)

    async def unload(self, name: str, version: int | None = None) -> None:
        for spec in self._catalogue.remove(name, version):
            self._residency.drop(spec.key)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def known(self) -> tuple[AdapterKey, ...]:
        return self._catalogue.keys()

    def resident(self) -> tuple[Resident, ...]:
        return tuple(
            Resident(key=key, rank=weights.rank, bytes=weights.bytes, in_use=users)
            for key, weights, users in self._residency
        )

    def stats(self) -> EngineStats:
        held = self._residency
        running = sum(1 for pending in self._pending.values() if pending.tokens)
        return EngineStats(
            waiting=len(self._pending) - running,
            running=running,
            known=len(self._catalogue.keys()),
            resident=len(self.resident()),
            loads=held.loads,
            hits=held.hits,
            evictions=held.evictions,
            tokens=self._tokens,
        )

    async def answer(self, question: Question, on_text: OnText | None = None) -> Outcome:
        try:
            return await self._answer(question, on_text)
        except RillfoldError as error:
            reason = getattr(error, "reason", "refused")
            return Failure(id=question.id, reason=reason, detail=str(error), again=isinstance(error, Retry))

    async def generate(self, questions: Sequence[Question]) -> list[Outcome]:
        return list(await asyncio.gather(*(self.answer(question) for question in questions)))

    async def _answer(self, question: Question, on_text: OnText | None) -> Answer:
        if len(self._pending) >= self._waiting:
            raise QueueFull(f"{len(self._pending)} questions wait already; ask again in a while.")
        if question.adapter is None:
            return await self._run(question, None, None, self._prompt(question, None), on_text)
        while True:
            spec = self._catalogue.find(question.adapter, question.version)
            self._residency.pin(spec.key)
            try:
                weights = await self._weights(spec)
                return await self._run(question, spec.key, weights, self._prompt(question, spec), on_text)
            except UnusableAdapter as error:
                self._catalogue.refuse(spec.key, error)  # the newest that can be served answers, or the reason does
            finally:
                self._residency.unpin(spec.key)

    def _prompt(self, question: Question, spec: AdapterSpec | None) -> list[int]:
        """An adapter that was trained without its tools in the prompt is served without them."""
        tools = question.tools if spec is None or spec.tools_in_prompt else None
        try:
            prompt = self._chat.prompt(question.messages, tools)
        except (RillfoldError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadQuestion(f"messages or tools cannot be rendered: {error}") from error
        if len(prompt) >= self._base.context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens; {self.model} reads {self._base.context}.")
        return prompt

    async def _weights(self, spec: AdapterSpec) -> LoraWeights:
        """From memory, or read once for everybody who waits for it."""
        held = self._residency.get(spec.key)
        if held is not None:
            self._residency.hits += 1
            return held
        if spec.key not in self._reading:
            self._reading[spec.key] = asyncio.create_task(self._brought_in(spec))
        return await asyncio.shield(self._reading[spec.key])

    async def _brought_in(self, spec: AdapterSpec) -> LoraWeights:
        try:
            weights = await asyncio.to_thread(self._read, spec)
            self._residency.loads += 1
            self._residency.put(spec.key, weights)
            return weights
        finally:
            del self._reading[spec.key]

    async def _run(
        self, question: Question, key: AdapterKey | None, weights: LoraWeights | None, prompt: list[int],
        on_text: OnText | None,
    ) -> Answer:  # fmt: skip
        row = LoraRow(
            next(self._tickets),
            prompt,
            weights,
            max(1, min(question.max_tokens, self._base.context - len(prompt))),
            question.temperature,
            question.top_p,
            question.seed,
        )
        pending = _Pending(row, asyncio.get_running_loop().create_future(), TextStream(self._chat.decode), on_text)
        self._pending[row.ticket] = pending
        if not self.alive():
            raise EngineStopped("the engine's thread does not run; restart the worker.")
        self._orders.put(lambda engine: engine.submit(row))
        try:
            finish = await pending.done
        finally:
            del self._pending[row.ticket]
            if not pending.done.done() or pending.done.cancelled():
                self._orders.put(lambda engine: engine.cancel(row.ticket))
        return self._said(question, key, pending, finish)

    def _said(self, question: Question, key: AdapterKey | None, pending: _Pending, finish: str) -> Answer:
        text = self._chat.decode(pending.tokens)
        pending.flush(text)
        meant = parse(text)
        calls = meant.calls if isinstance(meant, ToolCalls) else ()
        return Answer(
            id=question.id,
            text=text,
            calls=calls,
            content=meant.text if isinstance(meant, ToolCalls) else text,
            finish_reason=finish,
            model=self.model,
            adapter=key,
            prompt_tokens=len(pending.row.prompt),
            completion_tokens=len(pending.tokens),
        )

    def _work(self) -> None:
        """The engine thread: orders in, a step, what was said out."""
        engine = self._make_engine()
        while self._obey(engine):
            try:
                said = engine.step()
            except Exception as error:
                engine.clear()
                self._tell(self._fail, f"a step of the engine failed: {type(error).__name__}: {error}")
                continue
            if said:
                self._tell(self._hear, said)

    def _obey(self, engine: Engine) -> bool:
        """Takes all orders there are; waits for one only when there is nothing to compute. False: stop."""
        while True:
            try:
                order = self._orders.get(block=not engine.rows())
            except queue.Empty:
                return True
            if order is None:
                return False
            order(engine)

    def _tell(self, hear: Callable[..., None], *what: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(hear, *what)

    def _hear(self, step: Sequence[Said]) -> None:
        self._tokens += len(step)
        for said in step:
            if said.ticket in self._pending:
                self._pending[said.ticket].take(said)

    def _fail(self, why: str) -> None:
        for pending in list(self._pending.values()):
            if not pending.done.done():
                pending.done.set_exception(EngineStopped(f"{why}; ask again."))
