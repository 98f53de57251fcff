"""Watches a worker from a thread of its own, with a client of its own: neither stands still when the worker does."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from streams.errors import MissingOffsets
from streams.health import watch
from streams.health.watch import Healthy, Patience, Sight, Stalled, State, Verdict
from streams.log.port import EventLog, TopicPartition, ends_of

log = logging.getLogger(__name__)
EX_SOFTWARE = 70
"""The exit code for a supervisor: start me again."""
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0
STRETCH = 64
"""Offsets that are looked through first: record batches of a MiB each, perhaps."""

Look = Callable[[], Sight]
OpenLog = Callable[[], AbstractAsyncContextManager[EventLog]]


def end_process(code: int) -> None:
    """Now: a worker that stands still has nothing to finish, and its streams would wait for ever."""
    logging.shutdown()
    os._exit(code)


class Watchman:
    """`step` is one look: the worker, the log's ends, what is suspicious, the verdict."""

    def __init__(
        self,
        look: Look,
        bounds: Patience,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], Any] = end_process,
    ) -> None:
        self._look, self._bounds, self._clock, self._end = look, bounds, clock, end
        self.state: State = watch.begun(clock())
        self.verdict: Verdict = watch.verdict(self.state, bounds, clock())
        self.stalls = 0

    def now(self) -> float:
        return self._clock()

    async def step(self, event_log: EventLog) -> None:
        self._see()
        await self._ask(event_log)
        self.judge()

    def judge(self) -> None:
        """A stall is said once, when it begins; its end once; and then the process goes, if it has not ended."""
        before, now = self.verdict, self._clock()
        self.verdict = found = watch.verdict(self.state, self._bounds, now)
        if isinstance(found, Stalled):
            if not isinstance(before, Stalled):
                self.stalls += 1
                log.error(
                    "Stalled for %.0f s: %s. Ends itself in %.0f s.", now - found.since, found.what, found.ends - now
                )
            if now >= found.ends:
                log.critical("Stalled for %.0f s: %s. Exit %d.", now - found.since, found.what, EX_SOFTWARE)
                self._end(EX_SOFTWARE)
        elif isinstance(before, Stalled):
            log.warning("No longer stalled: %s", "at work" if isinstance(found, Healthy) else found.what)

    def _see(self) -> None:
        """A worker that cannot be looked at stands where it stood: it is at work in another thread."""
        try:
            self.state = watch.seen(self.state, self._look(), self._clock())
        except Exception:
            log.warning("The watch could not look at the worker", exc_info=True)

    async def _ask(self, event_log: EventLog) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends, deleted = await ends_of(event_log, (topic for topic, _ in self.state.places))
                self.state = watch.answered(self.state, ends, self._clock(), deleted)
                for tp in watch.suspects(self.state, self._bounds, self._clock()):
                    place = self.state.places[tp]
                    async for end in _void(event_log, tp, max(place.position, place.void), place.end):
                        self.state = watch.void(self.state, tp, end)
        except Exception as error:
            self._unanswered(error)

    def _unanswered(self, error: Exception) -> None:
        """Whatever it is, it is the watched log that does not answer; time decides whether that matters."""
        self.state = watch.unanswered(self.state, f"{type(error).__name__} {error}".strip())

    @contextmanager
    def on_duty(self, open_log: OpenLog) -> Iterator[None]:
        """Looks once a second, from a thread, until the block ends."""
        stop = threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._keep_looking(open_log, stop)), name="watch", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(2 * LOOK_SECONDS)

    async def _keep_looking(self, open_log: OpenLog, stop: threading.Event) -> None:
        """Total: a broker that is away when its client is opened is asked again, and judged meanwhile."""
        while not stop.is_set():
            try:
                async with open_log() as event_log:
                    while not stop.is_set():
                        await self.step(event_log)
                        await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:
                self._see()
                self._unanswered(error)
                self.judge()
                await asyncio.sleep(LOOK_SECONDS)


async def _void(event_log: EventLog, tp: TopicPartition, start: int, stop: int) -> AsyncIterator[int]:
    """Up to where there is no record, a stretch at a time: what is aborted can be gigabytes, and the next look goes on
    where this one ran out of time."""
    size = STRETCH
    while start < stop and not await _has_records(event_log, tp, start, end := min(start + size, stop)):
        yield end
        start, size = end, 2 * size


async def _has_records(event_log: EventLog, tp: TopicPartition, start: int, stop: int) -> bool:
    try:
        async for batch in event_log.read(*tp, start, stop):
            if batch:
                return True
    except MissingOffsets:
        return True
    return False
