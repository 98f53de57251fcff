"""The inference worker: a plain consumer group over a batching engine. Each request ends in one event.

What a request says or causes is that request's own failure. The process ends only when the log or the engine does not
work; then what is open stays unanswered in the log, for the next worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gpu_workers.serve.errors import EngineStopped, QueueFull, RowFailed, UnknownAdapter, UnknownVersion
from gpu_workers.serve.follower import AdapterFollower
from gpu_workers.serve.port import Failure, InferenceEngine, Outcome, Question
from schemas.codec import decode
from schemas.envelope import Event, caused_by
from schemas.errors import Retry
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.rejected import Rejected, Unusable
from schemas.topics import TopicNames
from schemas.words import shortened
from streams.dead_letter import dead_letter
from streams.errors import Fenced, TooLarge
from streams.fold import Refused
from streams.log import EventLog, Outgoing, Record, Subscription, TopicPartition
from streams.outgoing import to_outgoing
from streams.standing import Standing
from streams.watch import Counts

log = logging.getLogger(__name__)

Polled = Mapping[TopicPartition, Sequence[Record]]
Polling = asyncio.Task[Polled]

GROUP = "rillfold-serve"
TOPIC, RESULTS = "inference-request", "inference-result"
POLL_SECONDS = 1.0
AT_ONCE = 32
# So many times the rows of the engine are taken in: companies take turns among what is in.
AHEAD = 4
ATTEMPTS = 5
PAUSE_SECONDS = 0.2
LONGEST_PAUSE = 5.0
# So many answered requests of a partition are remembered, to know a request that comes twice.
REMEMBERED = 10_000
DETAIL = 1_000

MISSING = (UnknownAdapter.reason, UnknownVersion.reason)
FULL = (QueueFull.reason, EngineStopped.reason)
"""Nothing is wrong with the request: it waits in the log, however long that takes."""

Asked = tuple[str, str]
"""Company and id of a request: two companies may choose the same id."""
Remembered = OrderedDict[Asked, None]


class Work(NamedTuple):
    """A request in the engine, and the offset that must not be committed before its result is in the log."""

    place: TopicPartition
    offset: int
    request: InferenceRequested
    task: asyncio.Task[Event]


class InferenceWorker:
    """`run` until cancelled. Requests of all partitions share the engine's batch; each partition commits in order."""

    def __init__(
        self,
        events: EventLog,
        names: TopicNames,
        engine: InferenceEngine,
        now: Callable[[], int],
        at_once: int = AHEAD * AT_ONCE,
    ) -> None:
        self._log, self._names, self._engine, self._now, self._at_once = events, names, engine, now, at_once
        self._adapters = AdapterFollower(events, names, engine)
        self.standing = Standing()
        self._tokens = self._results = 0
        self._work: list[Work] = []
        self._next: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._answered: dict[TopicPartition, Remembered] = {}

    def counts(self) -> Counts:
        return {"inference_results": ("Requests of the log that have their result.", self._results)}

    async def run(self, ready: Callable[[], None]) -> None:
        await self._adapters.catch_up()
        both = [asyncio.create_task(self._adapters.run()), asyncio.create_task(self._consume(ready))]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            ended.pop().result()  # neither ends by itself: this is its error
        finally:
            await _ended(both)

    async def _consume(self, ready: Callable[[], None]) -> None:
        polling: Polling | None = None
        async with self._log.subscribe(self._names.wire(GROUP), [self._names.wire(TOPIC)]) as group:
            ready()
            try:
                while True:
                    polling = await self._step(group, polling)
            finally:
                await _ended([work.task for work in self._work] + ([polling] if polling else []))

    async def _step(self, group: Subscription, polling: Polling | None) -> Polling | None:
        """One turn. The order of a commit is written here and nowhere else.

        1. something came, or is done   2. new requests into the engine   3. results into the log, acknowledged
        4. offsets below the first open request. A crash between 3 and 4 delivers again what has a result: it is known.
        """
        if polling is None and len(self._work) < self._at_once:
            polling = asyncio.create_task(_poll(group, self._at_once - len(self._work)))
        open_tasks: list[asyncio.Task[Any]] = [work.task for work in self._work] + ([polling] if polling else [])
        await asyncio.wait(open_tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        self._beat()
        if not self._engine.alive():
            raise EngineStopped("The engine does not work any more. What is open stays in the log; restart the worker.")
        if polling is not None and polling.done():
            await self._take(polling.result(), group.assignment())
            await self.standing.found(group)
            polling = None
        await self._publish()
        await self._commit(group)
        return polling

    def _beat(self) -> None:
        """An answer may take longer than anybody's patience: the engine's tokens show that it is worked on."""
        if (tokens := self._engine.stats().tokens) != self._tokens:
            self._tokens = tokens
            self.standing.beat()

    async def _take(self, polled: Polled, assignment: Collection[TopicPartition]) -> None:
        await self._keep_only(assignment)
        for place, records in polled.items():
            if place not in self._next:
                self._answered[place] = await self._results_of(place)
            for record in records:
                await self._begin(place, record)
            self._next[place] = records[-1].offset + 1

    async def _begin(self, place: TopicPartition, record: Record) -> None:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if isinstance(event, Rejected):
            await self._bury(Refused(record, event))
        elif isinstance(event, InferenceRequested) and not self._knows(place, _asked(event)):
            self._work.append(Work(place, record.offset, event, asyncio.create_task(self._answer(event))))

    async def _bury(self, refused: Refused) -> None:
        try:
            letter = to_outgoing(dead_letter(refused), self._names)
        except (TooLarge, Unusable) as error:
            log.error("%s: no dead letter can hold this record: %.500s", refused.rejected.origin, error)
            return
        await self._log.append([letter])

    def _knows(self, place: TopicPartition, asked: Asked) -> bool:
        return asked in self._answered[place] or any(_asked(work.request) == asked for work in self._work)

    async def _results_of(self, place: TopicPartition) -> Remembered:
        """The newest results, in whose midst those of uncommitted requests must be. No clock and no word of a record
        decides where to look. A result has its request's key: it lies in the same partition number."""
        topic, (_, partition) = self._names.wire(RESULTS), place
        first, end = (await self._log.starts(topic))[partition], (await self._log.ends(topic))[partition]
        found: Remembered = OrderedDict()
        async for batch in self._log.read(topic, partition, max(first, end - REMEMBERED), end):
            for record in batch:
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, InferenceCompleted | InferenceFailed):
                    found[event.company, event.request] = None
        return found

    async def _answer(self, request: InferenceRequested) -> Event:
        """Total: whatever goes wrong for a request, its result says so."""
        try:
            outcome = await self._outcome(request)
        except Exception as error:
            outcome = Failure(id=request.id, reason=RowFailed.reason, detail=f"{type(error).__name__}: {error}")
        return _result(request, outcome, self._now())

    async def _outcome(self, request: InferenceRequested) -> Outcome:
        """Tries again what may go better later; waits, without end, for an engine that has no room."""
        if not _own(request):
            return _not_yours(request)
        question, attempt, pause = _question(request), 0, PAUSE_SECONDS
        while True:
            outcome = await self._engine.answer(question)
            if not isinstance(outcome, Failure):
                return outcome
            if outcome.reason not in FULL:
                attempt += 1
                missing = outcome.reason in MISSING and attempt == 1 and await self._looked_again()
                if not missing and (not outcome.again or attempt >= ATTEMPTS):
                    return outcome
                if missing:
                    continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _looked_again(self) -> bool:
        """It may have become ready a moment ago. False: the log does not answer."""
        try:
            await self._adapters.catch_up()
        except Retry:
            return False
        return True

    async def _publish(self) -> None:
        done = [work for work in self._work if work.task.done()]
        if not done:
            return
        await self._log.append([self._outgoing(work) for work in done])
        self._results += len(done)
        for work in done:
            self._work.remove(work)
            answered = self._answered[work.place]
            answered[_asked(work.request)] = None
            while len(answered) > REMEMBERED:
                answered.popitem(last=False)

    def _outgoing(self, work: Work) -> Outgoing:
        """An answer that no record can hold is a failure, not a worker that dies of it again and again."""
        try:
            return to_outgoing(work.task.result(), self._names)
        except (TooLarge, Unusable) as error:
            failure = Failure(id=work.request.id, reason="answer_unfit", detail=str(error))
            return to_outgoing(_result(work.request, failure, self._now()), self._names)

    async def _commit(self, group: Subscription) -> None:
        floor = dict(self._next)
        for work in self._work:
            floor[work.place] = min(floor[work.place], work.offset)
        fresh = {place: offset for place, offset in floor.items() if self._committed.get(place) != offset}
        try:
            if fresh:
                await group.commit(fresh)
                self._committed.update(fresh)
                self.standing.reached(fresh)
        except Fenced:
            await self._keep_only(())

    async def _keep_only(self, assignment: Collection[TopicPartition]) -> None:
        """What belongs to another worker by now is that worker's to answer."""
        gone = [work for work in self._work if work.place not in assignment]
        self._work = [work for work in self._work if work.place in assignment]
        for known in (self._next, self._committed, self._answered):
            for place in set(known) - set(assignment):
                del known[place]
        await _ended([work.task for work in gone])


async def _poll(group: Subscription, room: int) -> Polled:
    return await group.poll(POLL_SECONDS, room)


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _question(request: InferenceRequested) -> Question:
    return Question(
        id=request.id,
        company=request.company,
        messages=request.messages,
        tools=request.tools,
        adapter=request.adapter,
        version=request.adapter_version,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
    )


def _asked(request: InferenceRequested) -> Asked:
    return request.company, request.id


def _own(request: InferenceRequested) -> bool:
    return request.adapter is None or request.adapter.partition("/")[0] == request.company


def _not_yours(request: InferenceRequested) -> Failure:
    """The same words as for an adapter that does not exist: nobody learns what others have."""
    return Failure(id=request.id, reason=UnknownAdapter.reason, detail=f"adapter {request.adapter} is not known here.")


def _result(request: InferenceRequested, outcome: Outcome, now: int) -> Event:
    about: dict[str, Any] = {**caused_by(request, "answer", now), "request": request.id, "job": request.job}
    if isinstance(outcome, Failure):
        return InferenceFailed(**about, reason=outcome.reason, detail=shortened(outcome.detail, DETAIL))
    return InferenceCompleted(
        **about,
        text=outcome.text,
        finish_reason=outcome.finish_reason,
        adapter=outcome.adapter.name if outcome.adapter else None,
        adapter_version=outcome.adapter.version if outcome.adapter else None,
        model=outcome.model,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        cached_tokens=outcome.cached_tokens,
    )
