"""The log as a training run sees it: what goes wrong there is the world's, whatever it is called."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from gpu_workers.adapters.remote_files import SILENT_SECONDS, SLOWEST, WRITE_PAUSES
from schemas.envelope import Event
from schemas.errors import Poison, Retry, Stop
from schemas.topics import TopicNames
from streams.fairness.slices import unheard
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Position, Record

P = ParamSpec("P")
T = TypeVar("T")
BEAT_SECONDS = 5.0
FILES_SENT = 8
"""At most, by one call."""
TRIES = 1 + len(WRITE_PAUSES)

log = logging.getLogger(__name__)


class LogOfRun:
    """The part of the log that a run uses, remembering what it raised."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log
        self._raised: Exception | None = None

    def is_to_blame(self, error: Exception) -> bool:
        """Errors with a name say themselves that a person, or time, must help."""
        return error is self._raised or isinstance(error, Retry | Stop)

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        with self._remembered():
            return await self._log.append(records)

    async def say_what_fits(self, events: Sequence[Event], names: TopicNames) -> None:
        """One that no record can hold holds up nobody."""
        records = []
        for event in events:
            try:
                records.append(to_outgoing(event, names))
            except Poison as error:
                log.critical("%s %s of %s cannot be said: %s", event.type, event.id, event.company, error)
        if records:
            await self.append(records)

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, beat: Callable[[], None] = unheard
    ) -> AsyncIterator[Sequence[Record]]:
        with self._remembered():
            async for batch in self._log.read(topic, partition, start, stop, beat):
                yield batch

    async def starts(self, topic: str) -> Mapping[int, int]:
        with self._remembered():
            return await self._log.starts(topic)

    async def ends(self, topic: str) -> Mapping[int, int]:
        with self._remembered():
            return await self._log.ends(topic)

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._raised = error
            raise


async def stored(beat: Callable[[], None], size: int, call: Callable[P, T], *given: P.args, **more: P.kwargs) -> T:
    """What a store does in a thread: it bounds each of its requests itself, by what it is sent, and the worker is at
    work meanwhile. A disk that hangs for longer than all of them may take is nobody's work."""
    seconds = FILES_SENT * (TRIES * SILENT_SECONDS + sum(WRITE_PAUSES)) + TRIES * size / SLOWEST
    doing = asyncio.ensure_future(asyncio.to_thread(call, *given, **more))
    try:
        for _ in range(round(seconds / BEAT_SECONDS)):
            if (await asyncio.wait({doing}, timeout=BEAT_SECONDS))[0]:
                break
            beat()
        return await doing
    finally:
        doing.cancel()
