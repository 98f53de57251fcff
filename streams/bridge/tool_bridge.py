"""From a proposed call to the company's own API and back. The only process that opens tool credentials.

Calls go out as their records come, each on its own, and are answered as they end. The order of a commit: 1. poll,
2. catch up on the tools, on jobs that were taken back and on what was answered, 3. begin what is not answered yet,
4. append the answers that are there, and not in the log by another's hand, and wait for their ack, 5. commit what lies
below the first open call. A crash before 4 calls again under the same idempotency key; a crash before 5 finds the
answer in the log and does not call.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from schemas.codec.codec import decode
from schemas.envelope import Event, caused_by
from schemas.errors import Poison
from schemas.rejected import Rejected, Unusable
from schemas.tools import ToolCallProposed, ToolReturned
from schemas.topics import TOPIC_OF, TopicNames
from schemas.words import shortened
from streams.bridge.endpoint import ToolReply
from streams.bridge.open_calls import BegunCall, OpenCalls, cancelled
from streams.bridge.said_of_calls import WITHDRAWALS, SaidOfCalls
from streams.bridge.secrets import FileSecrets
from streams.bridge.signing import NO_KINDS, AuthKind
from streams.bridge.tool_caller import PATIENCE_SECONDS, Caller
from streams.bridge.tools import Tools
from streams.errors import Fenced
from streams.fairness.slices import unheard
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import bury
from streams.health.standing import Standing
from streams.health.watch import Counts
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Record, Subscription, TopicPartition

GROUP = "rillfold-tool-bridge"
BATCH = 64
TURN_SECONDS = 1.0
# What is under way may end in this time when the bridge is told to stop; the rest is called again under its key.
STOP_SECONDS = 5.0
Batch = Mapping[TopicPartition, Sequence[Record]]
Polling = asyncio.Task[Batch]


class ToolBridge:
    """One member of the bridge's consumer group. `clock` gives microseconds."""

    def __init__(
        self,
        log: EventLog,
        names: TopicNames,
        secrets: FileSecrets,
        clock: Callable[[], int],
        *,
        private: bool = False,
        patience: float = PATIENCE_SECONDS,
        trust: ssl.SSLContext | None = None,
        group: str = GROUP,
        kinds: Mapping[str, AuthKind] = NO_KINDS,
    ) -> None:
        self._log, self._names, self._clock = log, names, clock
        self._group = f"{names.prefix}{group}"
        self.standing = Standing()
        self._tools = Tools(log, names, self.standing.beat)
        self._answered = SaidOfCalls(log, names, beat=self.standing.beat)
        self._withdrawn = SaidOfCalls(log, names, WITHDRAWALS, beat=self.standing.beat)
        self._caller = Caller(
            secrets, self._tools.find, private=private, patience=patience, trust=trust, withdrawn=self._withdrawn.of,
            kinds=kinds, clock=clock,
        )  # fmt: skip
        self._open = OpenCalls(self._caller.call)
        self._next: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._generation = 0
        self.calls = 0
        """Answered so far."""

    async def run(self, stop: asyncio.Event, joined: Callable[[], None] = unheard) -> None:
        """`joined` is called once, when the group's first answer is there."""
        with self.standing.restoring():
            await self._tools.catch_up()
        topic = self._names.wire(TOPIC_OF[ToolCallProposed].name)
        async with self._log.subscribe(self._group, (topic,)) as subscription, self._caller:
            await self.serve(subscription, stop, joined)

    async def serve(
        self, subscription: Subscription, stop: asyncio.Event, joined: Callable[[], None] = unheard
    ) -> None:
        """Until it is told to stop. The caller is open for as long."""
        polling: Polling | None = None
        self._generation, self._next, self._committed = 0, {}, {}
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._open.woken.set())
        try:
            while not stop.is_set():
                polling = polling or self._polling(subscription)
                if await self._step(subscription, polling):
                    polling = None
                    joined()
                    joined = unheard
            await self._finish(subscription)
        finally:
            await self._open.keep_only(())
            await cancelled([stopping, *([polling] if polling else [])])

    def _polling(self, subscription: Subscription) -> Polling:
        polling = asyncio.create_task(subscription.poll(TURN_SECONDS, BATCH))
        polling.add_done_callback(lambda _: self._open.woken.set())
        return polling

    async def _step(self, subscription: Subscription, polling: Polling) -> bool:
        """One turn, when records came, a call has ended, or a second is over. True: the polling is done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                await self._open.woken.wait()
        self._open.woken.clear()
        came = polling.done()
        if self._open or (came and polling.result()):
            # Also for the calls that wait or are tried again: their tool may be revoked, their job taken back.
            await self._tools.catch_up()
            await self._withdrawn.catch_up()
        if came:
            await self._taken(polling.result(), subscription)
        await self._publish()
        self._open.move_on()
        await self._commit(subscription)
        if self._open:
            # Each open call ends in bounded time, and this turn has seen to all of them.
            self.standing.beat()
        return came

    async def _taken(self, batch: Batch, subscription: Subscription) -> None:
        await self._found(subscription)
        batch = {place: records for place, records in batch.items() if place in subscription.assignment()}
        if not batch:
            return
        calls, refused = self._decoded(batch)
        if refused:
            await bury(self._log, self._names, refused)
        await self._withdrawn.catch_up(calls)
        answered = await self._answered.among(calls)
        for record, call in calls:
            if (key := (call.company, call.call)) not in self._open and key not in answered:
                self._open.add(record, call)
        self._next |= {place: records[-1].offset + 1 for place, records in batch.items()}

    async def _found(self, subscription: Subscription) -> None:
        """Partitions given out anew are read again from what is committed. Calls of others' are theirs to make, and
        what another has answered while we were away is done, whoever has the partition now."""
        await self.standing.found(subscription)
        if (generation := subscription.generation()) == self._generation:
            return
        self._generation = generation
        self._next, self._committed = {}, {}
        await self._answered.catch_up()
        await self._open.keep_only(subscription.assignment(), lambda key: key in self._answered)

    def _decoded(self, batch: Batch) -> tuple[list[tuple[Record, ToolCallProposed]], list[NoEvent]]:
        calls: list[tuple[Record, ToolCallProposed]] = []
        refused: list[NoEvent] = []
        for record in (record for records in batch.values() for record in records):
            event = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(event, ToolCallProposed):
                calls.append((record, event))
            else:
                wrong = event if isinstance(event, Rejected) else Rejected("wrong_topic", event.type, record.origin)
                refused.append(NoEvent(record, wrong))
        return calls, refused

    async def _publish(self) -> None:
        """Whoever slept longer than the group waits for him is told late: only the log knows what was answered."""
        if not (done := self._open.ended()):
            return
        await self._answered.catch_up()
        ours = [work for work in done if work.key not in self._answered]
        positions = await self._log.append([self._answer(work) for work in ours])
        self.calls += len(ours)
        for work, position in zip(ours, positions, strict=True):
            self._answered.said(work.key, position, self._clock() // 1000)
        for work in done:
            self._open.close(work)

    def _answer(self, work: BegunCall) -> Outgoing:
        """A reply that no record can hold is a failed call, not a bridge that dies of it again and again."""
        reply = work.task.result()
        try:
            return to_outgoing(self._returned(work.call, reply), self._names)
        except (Poison, Unusable) as error:
            unfit = ToolReply(False, reply.status, "", f"reply_unfit: {type(error).__name__}")
            return to_outgoing(self._returned(work.call, unfit), self._names)

    def _returned(self, call: ToolCallProposed, reply: ToolReply) -> Event:
        about: dict[str, Any] = {**caused_by(call, "returned", self._clock()), "call": call.call, "job": call.job}
        return ToolReturned(
            **about,
            tool=call.tool,
            ok=reply.ok,
            status=reply.status,
            body=shortened(reply.body),
            reason=shortened(reply.reason),
        )

    async def _commit(self, subscription: Subscription) -> None:
        floor = self._open.floor(self._next)
        fresh = {place: offset for place, offset in floor.items() if self._committed.get(place) != offset}
        # Fenced: the new owner gets the calls again, and finds our answers in the log.
        with suppress(Fenced):
            if fresh:
                await subscription.commit(fresh)
                self._committed |= fresh
                self.standing.reached(fresh)

    async def _finish(self, subscription: Subscription) -> None:
        await self._open.wait(STOP_SECONDS)
        await self._publish()
        await self._commit(subscription)

    def counts(self) -> Counts:
        return {"tool_calls": ("Calls of tools that were answered.", self.calls)}
