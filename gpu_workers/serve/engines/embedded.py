"""The port over our own engine: adapters are read beside it, one thread steps it, the event loop hears what is said."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.bases.chat import Chat
from gpu_workers.refused import (
    BadQuestion,
    EngineStopped,
    PromptTooLong,
    Refused,
    RowFailed,
    UnknownAdapter,
    UnusableAdapter,
)
from gpu_workers.serve.admission import EngineBounds, Questions, Seats
from gpu_workers.serve.catalogue import Catalogue, Residency
from gpu_workers.serve.engine.engine import Engine, Fell, LoraRow, Said, Step
from gpu_workers.serve.port import (
    DETAIL,
    AdapterKey,
    AdapterSpec,
    Answer,
    EngineStats,
    Failure,
    OnPiece,
    Outcome,
    Piece,
    Question,
    Resident,
)
from gpu_workers.serve.seen import Seen, Visit
from gpu_workers.serve.text import TextStream
from processors.answers import ToolCalls, parse
from schemas.adapters import company_of
from schemas.errors import Retry, RillfoldError
from schemas.words import shortened

log = logging.getLogger(__name__)

Read = Callable[[AdapterSpec], LoraWeights]
"""From the store to memory, checked. Raises `Refused`, or `Retry` where the disk or the memory is in the way."""
LETTERS_A_TOKEN = 32
"""No prompt in any language has so many on average: longer ones are not cut into tokens at all."""
TOKENS_A_PART = 3
"""What opens and closes a message, a call or a tool, also one without a letter."""
LONG_LETTERS = 16_000
LONG_PARTS = 64
"""A prompt above one of these is rendered and cut into tokens beside the event loop, which has others to serve."""


@dataclass
class _Pending:
    """A question that the engine thread works on, as the event loop sees it."""

    row: LoraRow
    done: asyncio.Future[str]
    stream: TextStream
    on_piece: OnPiece | None
    visit: Visit
    tokens: list[int] = field(default_factory=list)
    shown: int = 0

    def take(self, said: Said | Fell) -> None:
        if isinstance(said, Fell):
            self.fail(said.why)
            return
        self.tokens.append(said.token)
        self.visit.said()
        if self.on_piece and not said.finish and (piece := self.stream.push(said.token)):
            self.shown += len(piece)
            self.on_piece(Piece(piece))
        if said.finish and not self.done.done():
            self.done.set_result(said.finish)

    def fail(self, why: RillfoldError) -> None:
        if not self.done.done():
            self.done.set_exception(why)

    def flush(self, text: str) -> None:
        """What was held back: the end of the whole text."""
        if self.on_piece and text[self.shown :]:
            self.on_piece(Piece(text[self.shown :]))


@dataclass(frozen=True)
class Base:
    """The model that all adapters stand on."""

    name: str
    sha256: str
    context: int


class EmbeddedEngine:
    """`async with EmbeddedEngine(...)`: all calls from that event loop; the engine has a thread of its own.

    What a question causes is its own failure. The thread ends only when the engine itself is at fault: then `alive`
    is false, nobody is answered, and the process has to end.
    """

    def __init__(
        self, make_engine: Callable[[], Engine], base: Base, chat: Chat, read: Read, bounds: EngineBounds
    ) -> None:
        self._base, self._chat, self._read = base, chat, read
        self._make_engine = make_engine
        self._catalogue = Catalogue()
        self._bounds, self._seen = bounds, Seen()
        self._questions = Questions(bounds, self._seen)
        self._residency: Residency[LoraWeights] = Residency(bounds.capacity, bounds.company_adapters)
        self._seats = Seats(self._residency)
        self._reading: dict[AdapterSpec, asyncio.Task[LoraWeights]] = {}
        self._pending: dict[int, _Pending] = {}
        self._tickets = itertools.count()
        self._tokens = 0
        self._orders: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = "the engine's thread does not run"

    @property
    def model(self) -> str:
        return self._base.name

    @property
    def base_sha256(self) -> str:
        return self._base.sha256

    @property
    def seen(self) -> Seen:
        return self._seen

    async def __aenter__(self) -> EmbeddedEngine:
        self._loop = asyncio.get_running_loop()
        self._stopped = ""
        self._chat.encode("")  # the first use sets the tokenizer up, which no two threads may do at once
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)
        self._fail(self._stopped or "the engine was stopped")

    def announce(self, spec: AdapterSpec) -> None:
        self._catalogue.add(spec)

    async def load(self, spec: AdapterSpec) -> None:
        self._residency.drop(spec)
        if not self._residency.pin(spec):
            self.announce(spec)  # it is read, and judged, when somebody asks for it
            return
        try:
            await self._weights(spec)
        except UnusableAdapter as error:
            self._catalogue.refuse(spec.key, error)
            raise
        finally:
            self._seats.give(spec)
        self._catalogue.add(spec)

    async def unload(self, name: str, version: int | None = None) -> None:
        for spec in self._catalogue.remove(name, version):
            self._residency.drop(spec)

    def alive(self) -> bool:
        return not self._stopped

    def known(self) -> tuple[AdapterKey, ...]:
        return self._catalogue.keys()

    def resident(self) -> tuple[Resident, ...]:
        held = {spec.key: (weights, users) for spec, weights, users in self._residency}
        return tuple(
            Resident(key=key, rank=weights.rank, bytes=weights.bytes, in_use=users)
            for key, (weights, users) in held.items()
        )

    def stats(self) -> EngineStats:
        held, known, resident = self._residency, len(self._catalogue.keys()), len(self.resident())
        running = sum(1 for pending in list(self._pending.values()) if pending.tokens)
        return EngineStats(
            waiting=self._questions.count - running,
            running=running,
            known=known,
            resident=resident,
            loads=held.loads,
            hits=held.hits,
            evictions=held.evictions,
            tokens=self._tokens,
            capacity=self._bounds.capacity,
            tiers={"memory": resident, "store": max(0, known - resident)},
        )

    async def answer(self, question: Question, on_piece: OnPiece | None = None) -> Outcome:
        try:
            with self._questions.counted(question, _letters(question)) as visit:
                return await self._answer(question, visit, on_piece)
        except RillfoldError as error:
            wait, again = getattr(error, "wait", 0.0), isinstance(error, Retry)
            return _failure(question, getattr(error, "reason", "refused"), str(error), again, wait)
        except Exception as error:
            return _failure(question, RowFailed.reason, f"{type(error).__name__}: {error}", again=False)

    async def _answer(self, question: Question, visit: Visit, on_piece: OnPiece | None) -> Answer:
        if (why := question.unfit()) is not None:
            raise BadQuestion(f"{why}.")
        if question.adapter is None:
            return await self._run(question, None, None, visit, on_piece)
        if not question.may_ask():
            raise UnknownAdapter(f"adapter {question.adapter} is not known here.")
        while True:
            spec = self._catalogue.find(question.adapter, question.version)
            await self._seats.take(spec)
            try:
                return await self._run(question, spec, await self._weights(spec), visit, on_piece)
            except UnusableAdapter as error:
                self._catalogue.refuse(spec.key, error)  # the newest that can be served answers, or the reason does
            finally:
                self._seats.give(spec)

    def _prompt(self, question: Question, spec: AdapterSpec | None) -> list[int]:
        """An adapter that was trained without its tools in the prompt is served without them.

        Whatever template, parser and tokenizer raise is the question's own failure.
        """
        tools = question.tools if spec is None or spec.tools_in_prompt else None
        if (parts := _parts(question)) * TOKENS_A_PART >= self._base.context:
            raise PromptTooLong(f"{parts} messages, calls and tools; {self.model} reads {self._base.context} tokens.")
        if (letters := _letters(question)) > self._base.context * LETTERS_A_TOKEN:
            raise PromptTooLong(f"the prompt has {letters} letters; {self.model} reads {self._base.context} tokens.")
        try:
            prompt = self._chat.prompt(question.messages, tools)
        except Exception as error:
            why = f"messages or tools cannot be rendered: {type(error).__name__}: {error}"
            raise BadQuestion(why) from error
        if len(prompt) >= self._base.context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens; {self.model} reads {self._base.context}.")
        return prompt

    async def _weights(self, spec: AdapterSpec) -> LoraWeights:
        """From memory, or read once for everybody who waits for it. The caller has pinned it."""
        held = self._residency.get(spec)
        if held is not None:
            self._residency.hits += 1
            return held
        if spec not in self._reading:
            self._residency.pin(spec)  # the reading's own pin: who asked may go away meanwhile
            self._reading[spec] = asyncio.create_task(self._brought_in(spec))
            self._reading[spec].add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._reading[spec])

    async def _brought_in(self, spec: AdapterSpec) -> LoraWeights:
        try:
            weights = await asyncio.to_thread(self._read, spec)
            self._residency.loads += 1
            self._residency.put(spec, weights)
            return weights
        finally:
            del self._reading[spec]
            self._seats.give(spec)

    async def _run(
        self,
        question: Question,
        spec: AdapterSpec | None,
        weights: LoraWeights | None,
        visit: Visit,
        on_piece: OnPiece | None,
    ) -> Answer:
        long = len(question.messages) > LONG_PARTS or _letters(question) > LONG_LETTERS
        prompt = await asyncio.to_thread(self._prompt, question, spec) if long else self._prompt(question, spec)
        row = self._row(question, weights, prompt)
        done, stream = asyncio.get_running_loop().create_future(), TextStream(self._chat.decode)
        pending = _Pending(row, done, stream, on_piece, visit)
        if not self.alive():
            raise EngineStopped(f"{self._stopped}; restart the worker.")
        self._pending[row.ticket] = pending
        visit.prompt = len(prompt)
        self._orders.put(lambda engine: self._submit(engine, row))
        try:
            finish = await pending.done
        finally:
            del self._pending[row.ticket]
            if not pending.done.done() or pending.done.cancelled():
                self._take_out(row, spec)
        return self._said(question, spec.key if spec else None, pending, finish)

    def _row(self, question: Question, weights: LoraWeights | None, prompt: list[int]) -> LoraRow:
        owner = question.company or company_of(question.adapter or "")
        limit = min(question.max_tokens, self._base.context - len(prompt))
        ticket = next(self._tickets)  # two questions may bear one id
        return LoraRow(
            ticket, prompt, weights, limit, question.temperature, question.top_p, question.seed, owner or None
        )

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

    def _submit(self, engine: Engine, row: LoraRow) -> None:
        try:
            engine.submit(row)
        except Refused as error:
            self._tell(self._hear, [Fell(row.ticket, error)])

    def _take_out(self, row: LoraRow, spec: AdapterSpec | None) -> None:
        """Its adapter stays pinned until the engine's thread has let go of it."""
        if spec is not None:
            self._residency.pin(spec)

        def leave(engine: Engine) -> None:
            engine.cancel(row.ticket)
            if spec is not None:
                self._tell(self._seats.give, spec)

        self._orders.put(leave)

    def _work(self) -> None:
        """The engine thread: orders in, a step, what was said out."""
        try:
            engine = self._make_engine()
            while self._obey(engine):
                if step := engine.step():
                    self._tell(self._hear, step)
        except Exception as error:
            self._stopped = str(error) if isinstance(error, EngineStopped) else f"{type(error).__name__}: {error}"
            log.critical("The engine stopped: %.1000s", self._stopped)
        self._stopped = self._stopped or "the engine was stopped"
        self._tell(self._fail, self._stopped)

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

    def _hear(self, step: Step) -> None:
        self._tokens += len(step)
        for said in step:
            if (pending := self._pending.get(said.ticket)) is None:
                continue
            try:
                pending.take(said)
            except Exception as error:  # of its text, or of whoever reads along
                pending.fail(RowFailed(f"what was said cannot be told: {type(error).__name__}: {error}"))

    def _fail(self, why: str) -> None:
        for pending in list(self._pending.values()):
            pending.fail(EngineStopped(f"{why}; ask again."))


def _failure(question: Question, reason: str, detail: str, again: bool, wait: float = 0.0) -> Failure:
    """Its words may repeat what was asked: any length, and letters that no record holds."""
    return Failure(id=question.id, reason=reason, detail=shortened(detail, DETAIL), again=again, wait=wait)


def _letters(question: Question) -> int:
    said = sum(
        len(message.content) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        for message in question.messages
    )
    return said + len(question.tools or "")


def _parts(question: Question) -> int:
    """Messages, calls and tools. Tools that are no list count for nothing here: rendering says what they are."""
    tools: list[msgspec.Raw] = []
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        tools = msgspec.json.decode(question.tools or "[]", type=list[msgspec.Raw])
    return sum(1 + len(message.tool_calls) for message in question.messages) + len(tools)
