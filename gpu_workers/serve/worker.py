"""The inference worker: a plain consumer group over a batching engine. Each request ends in one event.

What a request says or causes is that request's own failure. The process ends only when the log or the engine does not
work; then what is open stays unanswered in the log, for the next worker.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from gpu_workers.inbox.answered import AnsweredRequests
from gpu_workers.inbox.begun import Begun, ended, request_in
from gpu_workers.inbox.inbox import TOO_MANY, Inbox, Item, Polled
from gpu_workers.inbox.reread import Reread
from gpu_workers.refused import (
    BadQuestion,
    EngineStopped,
    QueueFull,
    RowFailed,
    TooFast,
    UnknownAdapter,
    UnknownVersion,
)
from gpu_workers.serve.follower import AdapterFollower
from gpu_workers.serve.port import DETAIL, Failure, InferenceEngine, Outcome, Question, must_of
from schemas.codec.codec import decode
from schemas.envelope import Event, caused_by
from schemas.errors import Retry
from schemas.inference import InferenceCompleted, InferenceFailed, InferenceRequested
from schemas.rejected import Rejected, Unusable
from schemas.topics import TopicNames
from schemas.words import shortened
from streams.errors import TooLarge
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import bury
from streams.health.standing import Standing
from streams.health.watch import Counts
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Record, Subscription, TopicPartition

log = logging.getLogger(__name__)

Polling = asyncio.Task[Polled]
Said = tuple[Item, InferenceRequested, Event]
"""Where a request stands, its words and its result."""

GROUP = "rillfold-serve"
TOPIC = "inference-request"
POLL_SECONDS = 1.0
SECOND = 1_000_000
"""In the microseconds that the log counts in."""
AT_ONCE = 32
# So many times the rows of the engine are asked of it at once, half of them at most by one company.
AHEAD, SHARE = 4, 2
ATTEMPTS = 5
PAUSE_SECONDS = 0.2
LONGEST_PAUSE = 5.0
FULL_SECONDS = 1.0
"""So long nothing more is asked for a company for which there was no room."""

MISSING = (UnknownAdapter.reason, UnknownVersion.reason)
FULL = (QueueFull.reason, TooFast.reason)
"""Nothing is wrong with the request: it waits in the log, however long that takes, and has no place meanwhile."""


class Later(NamedTuple):
    """No outcome yet."""

    seconds: float


class InferenceWorker:
    """`run` until cancelled. It polls on while requests are answered, and companies take turns among what has come."""

    def __init__(
        self,
        events: EventLog,
        names: TopicNames,
        engine: InferenceEngine,
        now: Callable[[], int],
        at_once: int = AHEAD * AT_ONCE,
        inbox: Inbox | None = None,
    ) -> None:
        self._log, self._names, self._engine, self._now = events, names, engine, now
        self.standing = Standing()
        self._adapters = AdapterFollower(events, names, engine, self.standing.beat)
        self._inbox = Inbox(share=max(1, at_once // SHARE)) if inbox is None else inbox
        self._words = Reread(events, self._inbox)
        self._answered = AnsweredRequests(events, names)
        self._begun = Begun(
            self._inbox, self.standing, self._answer_of, at_once, [self._answered.clear, self._words.clear]
        )
        self._tokens = self._results = 0
        self._in_order = 0.0
        """Until then a company waits for tokens that come with time: nobody needs to do anything for it."""

    def counts(self) -> Counts:
        return {"inference_results": ("Requests of the log that have their result.", self._results)}

    async def run(self, ready: Callable[[], None]) -> None:
        with self.standing.restoring():
            await self._adapters.catch_up()
        both = [asyncio.create_task(self._adapters.run()), asyncio.create_task(self._consume(ready))]
        try:
            first, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            first.pop().result()  # neither ends by itself: this is its error
        finally:
            await ended(both)

    async def _consume(self, ready: Callable[[], None]) -> None:
        polling: Polling | None = None
        async with self._log.subscribe(self._names.wire(GROUP), [self._names.wire(TOPIC)]) as group:
            ready()
            try:
                while True:
                    polling = await self._step(group, polling)
            finally:
                await self._begun.end(*([polling] if polling else []))

    async def _step(self, group: Subscription, polling: Polling | None) -> Polling | None:
        """One turn. The order of a commit is written here and nowhere else.

        1. something came, or is done   2. what came is noted, and what the log says of adapters by then   3. results
        into the log, acknowledged   4. whose turn it is goes into the engine   5. offsets below the first open request.
        A crash between 3 and 5 delivers again what has a result: it is known.
        """
        polling = polling or asyncio.create_task(self._inbox.poll(group, POLL_SECONDS))
        open_tasks: list[asyncio.Task[Any]] = [*(work.task for work in self._begun.work), polling]
        patience = self._begun.rested(POLL_SECONDS)
        await asyncio.wait(open_tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        self._beat()
        if not self._engine.alive():
            raise EngineStopped("The engine does not work any more. What is open stays in the log; restart the worker.")
        if came := polling.done():
            if polling.result():
                await self._looked_again()  # what was decided of adapters before these requests holds for them
            await self._take(await self._begun.ours(group, polling.result()))
            await self._begun.keep_only_ours(group)
        await self._publish()
        self._begun.begin()
        self._answered.committed(await self._begun.commit(group))
        return None if came else polling

    def _beat(self) -> None:
        """An answer may take longer than anybody's patience: the engine's tokens show that it is worked on."""
        tokens = self._engine.stats().tokens
        waits = not self._begun.work and time.monotonic() < self._in_order
        if waits or tokens != self._tokens:
            self._tokens = tokens
            self.standing.beat()

    async def _take(self, polled: Polled) -> None:
        """What is no event is buried, and who asks beyond his room is told, all of a poll at once: a small batch may
        hold very many."""
        for place, records in polled.items():
            await self._answered.open(place)
            self._answered.polled(place, records)
            beyond: dict[tuple[str, str], Said] = {}
            refused: list[NoEvent] = []
            for record in records:
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, Rejected):
                    refused.append(NoEvent(record, event))
                elif said := self._note(place, record, event):
                    beyond.setdefault((said[0].company, said[0].id), said)
            if refused:
                await bury(self._log, self._names, refused)
            await self._say(list(beyond.values()))
            self._inbox.passed(place, records[-1].offset + 1)

    def _note(self, place: TopicPartition, record: Record, event: Event) -> Said | None:
        """What is to be said at once: that it is beyond its company's room."""
        if not isinstance(event, InferenceRequested):
            return None
        if not self._knows(item := Item.of(event, place, record.offset, event.priority)):
            if crowded := self._inbox.crowded(item.company):
                failure = Failure(id=event.id, reason=TOO_MANY, detail=crowded)
                return item, event, _result(event, failure, self._now())
            self._inbox.add(item)
            self._words.keep(item, record)
        return None

    def _knows(self, item: Item) -> bool:
        return self._answered.knows(item) or self._inbox.has(item.company, item.id)

    async def _answer_of(self, item: Item) -> tuple[InferenceRequested, Event] | Later | None:
        """The request and its result; None where its words are gone."""
        record = await self._words.of(item)
        request = request_in(record, InferenceRequested)
        if record is None or request is None:
            return None
        answer = await self._answer(request)
        if isinstance(answer, Later):
            self._words.keep(item, record)
            return answer
        return request, answer

    async def _answer(self, request: InferenceRequested) -> Event | Later:
        """Total: whatever goes wrong for a request, its result says so."""
        try:
            outcome = await self._outcome(request)
        except Exception as error:
            outcome = Failure(id=request.id, reason=RowFailed.reason, detail=f"{type(error).__name__}: {error}")
        if isinstance(outcome, Later):
            return outcome
        return _result(request, outcome, self._now())

    async def _outcome(self, request: InferenceRequested) -> Outcome | Later:
        """Tries again what may go better later. An engine that has stopped is asked until the process ends."""
        try:
            question = _question(request)
        except BadQuestion as error:
            return Failure(id=request.id, reason=error.reason, detail=str(error))
        attempt, pause = 0, PAUSE_SECONDS
        if not question.may_ask():
            return _not_yours(request)
        while True:
            outcome = await self._engine.answer(self._in_time(question, request.deadline))
            if not isinstance(outcome, Failure):
                return outcome
            if outcome.reason in FULL:
                return self._later(outcome)
            if outcome.reason != EngineStopped.reason:
                attempt += 1
                missing = outcome.reason in MISSING and attempt == 1 and await self._looked_again()
                if not missing and (not outcome.again or attempt >= ATTEMPTS):
                    return outcome
                if missing:
                    continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _in_time(self, question: Question, deadline: int | None) -> Question:
        """Each try has what is left of its time."""
        if deadline is None:
            return question
        return msgspec.structs.replace(question, within=(deadline - self._now()) / SECOND)

    def _later(self, full: Failure) -> Later:
        seconds = min(max(full.wait, FULL_SECONDS), LONGEST_PAUSE)
        if full.reason == TooFast.reason:
            self._in_order = max(self._in_order, time.monotonic() + seconds + POLL_SECONDS)
        return Later(seconds)

    async def _looked_again(self) -> bool:
        """Something may have been said of adapters a moment ago. False: the log does not answer."""
        try:
            await self._adapters.catch_up()
        except Retry:
            return False
        return True

    async def _publish(self) -> None:
        ended = self._begun.done()
        for work in reversed(ended):  # the first of them is the first of its line again
            if isinstance(answer := work.task.result(), Later):
                self._begun.postponed(work, answer.seconds)
        done = self._begun.done()
        told = [(work.item, work.task.result()) for work in done]
        await self._say([(item, *answer) for item, answer in told if answer and not isinstance(answer, Later)])
        self._begun.finished(done)

    async def _say(self, said: Sequence[Said]) -> None:
        """Acknowledged, and known as answered, when this returns."""
        if not said:
            return
        for item, *_ in said:
            await self._answered.open(item.place)
        positions = await self._log.append([self._outgoing(*each) for each in said])
        for (item, *_), position in zip(said, positions, strict=True):
            self._answered.note(item, position)
        self._results += len(said)

    def _outgoing(self, item: Item, request: InferenceRequested, result: Event) -> Outgoing:
        """An answer that no record can hold is a failure, not a worker that dies of it again and again."""
        try:
            record = to_outgoing(result, self._names)
        except (TooLarge, Unusable) as error:
            failure = Failure(id=request.id, reason="answer_unfit", detail=str(error))
            record = to_outgoing(_result(request, failure, self._now()), self._names)
        return self._answered.signed(item.place, record)


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
        must=must_of(request.must),
        priority=request.priority,
    )


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
