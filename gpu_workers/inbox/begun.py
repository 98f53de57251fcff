"""What is begun of an inbox, until it has ended or is another worker's: both workers go on, let go and commit so."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from gpu_workers.inbox.inbox import Inbox, Item, Polled
from schemas.codec.codec import decode
from schemas.envelope import Event
from streams.errors import Fenced
from streams.health.standing import Standing
from streams.log.port import Record, Subscription, TopicPartition

Result = TypeVar("Result")
Request = TypeVar("Request", bound=Event)


class Work(NamedTuple, Generic[Result]):
    """A request whose turn has come. Its task ends with it."""

    item: Item
    task: asyncio.Task[Result]


class Begun(Generic[Result]):
    """So many requests at once, as the inbox gives them turns. Partitions given out anew call each of `forget`."""

    def __init__(
        self,
        inbox: Inbox,
        standing: Standing,
        do: Callable[[Item], Coroutine[Any, Any, Result]],
        at_once: int,
        forget: Sequence[Callable[[], None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox, self._standing, self._do, self._at_once = inbox, standing, do, at_once
        self.work: list[Work[Result]] = []
        self._committed: dict[TopicPartition, int] = {}
        self._forget = (self._committed.clear, *forget)
        self._generation = 0
        self._clock = clock
        self._resting: dict[str, float] = {}
        """Companies of which nothing is begun until then: so what waits for its turn has no place of the others'."""

    async def ours(self, group: Subscription, polled: Polled) -> Polled:
        """Delivered again is what was not committed, whoever did it: nothing else that is known of it holds."""
        polled = await self._inbox.ours(group, polled)
        if (generation := group.generation()) != self._generation:
            self._generation = generation
            for forget in self._forget:
                forget()
        return polled

    async def keep_only_ours(self, group: Subscription) -> None:
        """After what was polled is noted, which takes its time."""
        self._inbox.keep_only(group.assignment())
        await self._let_go()
        await self._standing.found(group)

    def begin(self) -> None:
        now = self._clock()
        self._resting = {company: until for company, until in self._resting.items() if until > now}
        while len(self.work) < self._at_once and (item := self._inbox.first(self._resting)):
            self._inbox.begun(item)
            self.work.append(Work(item, asyncio.create_task(self._do(item))))

    def done(self) -> list[Work[Result]]:
        return [work for work in self.work if work.task.done()]

    def finished(self, done: Sequence[Work[Result]]) -> None:
        """Their outcomes are in the log."""
        self.work = [work for work in self.work if work not in done]
        for work in done:
            self._inbox.finished(work.item)
        if done:
            self._standing.beat()

    def postponed(self, work: Work[Result], seconds: float) -> None:
        """It has ended without an outcome: it is begun anew, and nothing of its company before so many seconds."""
        self.work = [other for other in self.work if other is not work]
        self._inbox.put_back(work.item)
        company, until = work.item.company, self._clock() + seconds
        self._resting[company] = max(until, self._resting.get(company, until))

    def rested(self, most: float) -> float:
        """Seconds until the first of those that rest may go on, and no more than these."""
        now = self._clock()
        return min([most, *(max(0.0, until - now) for until in self._resting.values())])

    async def commit(self, group: Subscription) -> dict[TopicPartition, int]:
        """Offsets below the first open request: those that are new."""
        if not self._inbox.current(group):
            return {}
        floor = self._inbox.committable()
        fresh = {place: offset for place, offset in floor.items() if self._committed.get(place) != offset}
        try:
            if fresh:
                await group.commit(fresh)
        except Fenced:
            self._inbox.forget()
            self._generation = 0
            await self._let_go()
            return {}
        self._committed.update(fresh)
        self._standing.reached(fresh)
        return fresh

    async def end(self, *beside: asyncio.Task[Any]) -> None:
        await ended([*(work.task for work in self.work), *beside])

    async def _let_go(self) -> None:
        """What belongs to another worker by now is that worker's to do."""
        gone = [work for work in self.work if not self._inbox.holds(work.item)]
        self.work = [work for work in self.work if self._inbox.holds(work.item)]
        await ended([work.task for work in gone])


def request_in(record: Record | None, kind: type[Request]) -> Request | None:
    """None: it is another event, or none at all."""
    event = decode(record.value, record.origin, record.timestamp, record.headers) if record else None
    return event if isinstance(event, kind) else None


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancelled, and waited for."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
