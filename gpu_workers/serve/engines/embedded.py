"""The port over our own engine: adapters are read beside it, one thread steps it, the event loop hears what is said."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from time import monotonic

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.bases.chat import Chat
from gpu_workers.refused import (
    BadQuestion,
    EngineStopped,
    Refused,
    RowFailed,
    TooLate,
    UnknownAdapter,
    UnusableAdapter,
)
from gpu_workers.serve.admission import EngineBounds, Questions, Seats
from gpu_workers.serve.catalogue import Catalogue, Residency
from gpu_workers.serve.engine.engine import Engine, Fell, KVMemory, LoraRow, Said, Step
from gpu_workers.serve.engines.asked import Base, RowMaker, letters, owner_of, slow, spent
from gpu_workers.serve.engines.pending import Pending, untold_calls
from gpu_workers.serve.engines.slow_work import SlowWork
from gpu_workers.serve.port import (
    DETAIL,
    AdapterKey,
    AdapterSpec,
    Answer,
    EngineStats,
    Failure,
    OnSnippet,
    Outcome,
    Question,
    Resident,
)
from gpu_workers.serve.seen import Seen, Visit
from processors.answers import CallForm, ToolCalls, parse, tagged
from projections.rollouts import Rollout
from schemas.errors import Retry, RillfoldError
from schemas.words import shortened

log = logging.getLogger(__name__)

TOKENS_REMEMBERED = 65_536
"""Whose bytes are told beside their chances without asking the tokenizer again."""

Read = Callable[[AdapterSpec], LoraWeights]
"""From the store to memory, checked. Raises `Refused`, or `Retry` where the disk or the memory is in the way."""


class EmbeddedEngine:
    """`async with EmbeddedEngine(...)`: all calls from that event loop; the engine has a thread of its own.

    What a question causes is its own failure. The thread ends only when the engine itself is at fault: then `alive`
    is false, nobody is answered, and the process has to end.
    """

    def __init__(
        self, make_engine: Callable[[], Engine], base: Base, chat: Chat, read: Read, bounds: EngineBounds
    ) -> None:
        self._base, self._chat, self._read = base, chat, read
        self._bytes_of = lru_cache(TOKENS_REMEMBERED)(chat.bytes_of)
        self._rows_of, self._slow_work = RowMaker(chat, base), SlowWork()
        self._memory = KVMemory(0, 0)
        self._make_engine = make_engine
        self._catalogue = Catalogue()
        self._bounds, self._seen = bounds, Seen()
        self._questions = Questions(bounds, self._seen)
        self._residency: Residency[LoraWeights] = Residency(bounds.capacity, bounds.company_adapters)
        self._seats = Seats(self._residency)
        self._reading: dict[Hashable, tuple[AdapterKey, asyncio.Task[LoraWeights]]] = {}
        self._pending: dict[int, Pending] = {}
        self._tickets = itertools.count()
        self._tokens = self._prompts = self._cached = 0
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
        self._slow_work.close()
        await asyncio.to_thread(self._thread.join)
        self._fail(self._stopped or "the engine was stopped")

    def announce(self, spec: AdapterSpec) -> None:
        for before in self._catalogue.add(spec):
            if before.content != spec.content:
                self._residency.drop(before)

    def obey(self, rollout: Rollout) -> None:
        for withdrawn in self._catalogue.obey(rollout):
            self._residency.drop(withdrawn)

    async def load(self, spec: AdapterSpec) -> None:
        spec, before = spec.anew(), self._catalogue.held(spec.key)
        self._residency.drop(spec)
        if not self._residency.pin(spec):
            self.announce(spec)  # it is read, and judged, when somebody asks for it
            return
        try:
            await self._weights(spec)
        except UnusableAdapter as error:
            if self._catalogue.held(spec.key) in (None, before):  # and no other was announced meanwhile
                self._catalogue.refuse(spec, error, monotonic())
            raise
        finally:
            self._seats.give(spec)
        self.announce(spec)

    async def unload(self, name: str, version: int | None = None) -> None:
        for spec in self._catalogue.remove(name, version):
            self._residency.drop(spec)

    def alive(self) -> bool:
        return not self._stopped

    def known(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        return tuple(self._catalogue.keys(company))

    def answering(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        return tuple(self._catalogue.answering(company))

    def found(self, name: str, version: int | None) -> AdapterKey | None:
        try:
            return self._catalogue.find(name, version).key
        except Refused:
            return None

    def resident(self) -> tuple[Resident, ...]:
        held = {spec.key: (weights, users) for spec, weights, users in self._residency}
        return tuple(
            Resident(key=key, rank=weights.rank, bytes=weights.bytes, in_use=users)
            for key, (weights, users) in held.items()
        )

    def stats(self) -> EngineStats:
        held, known, resident = self._residency, len(self._catalogue), len(self.resident())
        running = sum(1 for pending in list(self._pending.values()) if pending.tokens)
        return EngineStats(
            waiting=self._questions.count - running,
            running=running,
            known=known,
            resident=len(held),
            loads=held.loads,
            hits=held.hits,
            evictions=held.evictions,
            tokens=self._tokens,
            pages=self._memory.pages,
            pages_held=self._memory.held,
            prompt_tokens=self._prompts,
            cached_tokens=self._cached,
            capacity=self._bounds.capacity,
            tiers={"memory": resident, "store": max(0, known - resident)},
        )

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        try:
            if question.within is not None and question.within <= 0:  # said also where there is no room for it
                raise TooLate(f"nobody has wanted its answer for {-question.within:.3f} s.")
            with self._questions.counted(question, letters(question)) as visit:
                return await self._in_time(question, visit, on_snippet)
        except RillfoldError as error:
            wait, again = getattr(error, "wait", 0.0), isinstance(error, Retry)
            return _failure(question, getattr(error, "reason", "refused"), str(error), again, wait)
        except Exception as error:
            return _failure(question, RowFailed.reason, f"{type(error).__name__}: {error}", again=False)

    async def _in_time(self, question: Question, visit: Visit, on_snippet: OnSnippet | None) -> Answer:
        """Where its time is over its row leaves the batch, as if the caller had gone."""
        if (why := question.unfit()) is not None:
            raise BadQuestion(f"{why}.")
        try:
            async with asyncio.timeout(question.within) as limit:
                return await self._answer(question, visit, on_snippet)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TooLate(f"it was wanted within {question.within:g} s, and is not answered by now.") from None

    async def _answer(self, question: Question, visit: Visit, on_snippet: OnSnippet | None) -> Answer:
        if question.adapter is None:
            return await self._run(question, None, None, visit, on_snippet)
        if not question.may_ask():
            raise UnknownAdapter(f"adapter {question.adapter} is not known here.")
        self._catalogue.look_again(question.adapter, monotonic())
        while True:
            spec = self._catalogue.find(question.adapter, question.version)
            await self._seats.take(spec)
            try:
                return await self._run(question, spec, await self._weights(spec), visit, on_snippet)
            except UnusableAdapter as error:  # the newest that can be served answers, or the reason does
                if (now := self._catalogue.held(spec.key)) is not None and now.content == spec.content:
                    self._catalogue.refuse(spec, error, monotonic())
            finally:
                self._seats.give(spec)

    async def _weights(self, spec: AdapterSpec) -> LoraWeights:
        """From memory, or read once for everybody who waits for it. The caller has pinned it.

        Why it cannot be read is told under the reader's own name: it is no business of those who share the content.
        """
        while (held := self._residency.get(spec)) is None:
            if spec.content not in self._reading:
                self._residency.pin(spec)  # the reading's own pin: who asked may go away meanwhile
                reading = asyncio.create_task(self._brought_in(spec))
                reading.add_done_callback(lambda task: task.cancelled() or task.exception())
                self._reading[spec.content] = spec.key, reading
            reader, reading = self._reading[spec.content]
            try:
                return await asyncio.shield(reading)
            except RillfoldError:
                if reader == spec.key:
                    raise
        self._residency.hits += 1
        return held

    async def _brought_in(self, spec: AdapterSpec) -> LoraWeights:
        try:
            weights = await asyncio.to_thread(self._read, spec)
            self._residency.loads += 1
            self._residency.put(spec, weights)
            return weights
        finally:
            del self._reading[spec.content]
            self._seats.give(spec)

    async def _run(
        self,
        question: Question,
        spec: AdapterSpec | None,
        weights: LoraWeights | None,
        visit: Visit,
        on_snippet: OnSnippet | None,
    ) -> Answer:
        asked = partial(self._rows_of.row, next(self._tickets), question, spec, weights)
        row = await self._made_aside(question, visit, asked) if slow(question) else asked()
        form = self._rows_of.chat(spec).form
        heard = untold_calls(on_snippet, form) if on_snippet is not None else None
        pending = Pending(row, self._chat, self._bytes_of, question.stop, heard, visit)
        if not self.alive():
            raise EngineStopped(f"{self._stopped}; restart the worker.")
        self._pending[row.ticket] = pending
        visit.prompt = len(row.prompt)
        self._orders.put(lambda engine: self._submit(engine, row))
        try:
            finish = await pending.done
        finally:
            del self._pending[row.ticket]
            if pending.runs:
                self._take_out(row, spec)
        return self._said(question, spec.key if spec else None, pending, finish, form)

    async def _made_aside(self, question: Question, visit: Visit, asked: Callable[[], LoraRow]) -> LoraRow:
        """What it costs is charged also to those who leave meanwhile, or are refused in the end."""
        visit.prompt = min(spent(question), self._base.context)
        return await self._slow_work.do(owner_of(question), asked)

    def _said(
        self, question: Question, key: AdapterKey | None, pending: Pending, finish: str, form: CallForm
    ) -> Answer:
        said, row = pending.ended(), pending.row
        meant = parse(said, form)
        text = tagged(said, meant, form)
        calls = meant.calls if isinstance(meant, ToolCalls) else ()
        self._prompts += len(row.prompt)
        self._cached += row.cached
        return Answer(
            id=question.id,
            text=text,
            calls=calls,
            content=meant.text if isinstance(meant, ToolCalls) else text,
            finish_reason=finish,
            model=self.model,
            adapter=key,
            prompt_tokens=len(row.prompt),
            completion_tokens=len(pending.tokens),
            cached_tokens=row.cached,
            choices=tuple(pending.choices),
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
                self._memory = engine.memory()
        except Exception as error:
            self._stopped = str(error) if isinstance(error, EngineStopped) else f"{type(error).__name__}: {error}"
            log.critical("The engine stopped: %.1000s", self._stopped)
        self._stopped = self._stopped or "the engine was stopped"
        self._tell(self._fail, self._stopped)

    def _obey(self, engine: Engine) -> bool:
        """Takes all orders there are; waits for one only when there is nothing to compute. False: stop."""
        while True:
            try:
                order = self._orders.get(block=not engine.busy())
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
        self._tokens += sum(len(said.tokens) for said in step if isinstance(said, Said))
        for each in self._pending.values():
            each.look()
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
