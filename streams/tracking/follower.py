"""Follows runs in the log, and notes them in MLflow: all that the log holds, once, and then whatever comes.

The order: 1. read, 2. fold, 3. note, 4. commit how far it has come. A crash before 4 notes the same again, which is
nothing new. Who begins after it shuts it out: at 4, before it makes a run, and when it has waited.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import NamedTuple

from processors.training.tracked import RunNote, Tracking, together
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.errors import Retry, Stop
from schemas.topics import TopicNames
from streams.errors import NAMED, RETRY_SECONDS
from streams.fairness.slices import Slices, in_turns, unheard
from streams.health.watch import Counts, Sight
from streams.log.port import Alone, EventLog, Reached, Record, TopicPartition, extents, records_in
from streams.state.refusal import Untaken, blamed_on_events
from streams.tracking.errors import MlflowAway, MlflowFails, MlflowRefused
from streams.tracking.mlflow import Mlflow, Ours

GROUP = "rillfold-mlflow"
TOPICS = ("training-request", "adapter-ready")
"""In this order: what is said of an adapter follows from what was said of its run."""
LOOK_SECONDS = 1.0
CHUNK, CHUNK_BYTES, NOTES = 500, 8 << 20, 20
"""Offsets of one partition, what they hold, and runs, between two commits; then it is another's turn."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
TRIES = 3
"""So often in a row one note is tried while MLflow takes another run; then it is the note's fault, and nobody waits for
it."""

log = logging.getLogger(__name__)


class _Folded(NamedTuple):
    """What was read up to `stop`, and of which not all is noted yet. It is not folded again."""

    place: TopicPartition
    stop: int
    notes: deque[RunNote]


class RunFollower:
    """One of an installation: two would make a run twice."""

    def __init__(
        self,
        event_log: EventLog,
        names: TopicNames,
        mlflow: Mlflow,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._log, self._mlflow, self._sleep = event_log, mlflow, sleep
        self._topics, self._group = [names.wire(topic) for topic in TOPICS], f"{names.prefix}{GROUP}"
        self._events = {topic: names.events_on(topic) for topic in self._topics}
        self._tracking = Tracking()
        self._next: dict[TopicPartition, int] | None = None
        """None: it has not read yet what was noted before."""
        self._folded: _Folded | None = None
        self._beats = 0
        self.noted, self.passed_over = 0, 0

    def sight(self) -> Sight:
        """May be asked from another thread."""
        known = self._next
        return Sight("restoring" if known is None else "working", known or {}, self._beats + self._mlflow.requests)

    def counts(self) -> Counts:
        return {
            "runs_noted": ("Notes of runs that MLflow took.", self.noted),
            "runs_passed_over": ("Notes of runs that MLflow did not take.", self.passed_over),
        }

    async def run(self, ready: Callable[[], None] = unheard) -> None:
        """Until cancelled, or shut out by another that has begun since."""
        while True:
            try:
                async with self._log.alone(self._group) as alone:
                    await self._recall()
                    ready()
                    ready = unheard
                    while True:
                        if not await self.step(alone):
                            await self._sleep(LOOK_SECONDS)
            except Retry as error:
                log.warning("%s", error)
                await self._sleep(RETRY_SECONDS)

    async def behind(self) -> bool:
        """Whether there is more in the log than was noted."""
        known = self._next
        if known is None:
            return True
        ends = {(topic, n): end for topic in self._topics for n, end in (await self._log.ends(topic)).items()}
        return any(known.get(place, 0) < end for place, end in ends.items())

    async def step(self, alone: Alone) -> bool:
        """What has come since, of every partition. Says whether there was anything.

        How far adapters go is asked first: then all that led to them is read before them.
        """
        await self._finish(alone)
        ends = {topic: await self._log.ends(topic) for topic in reversed(self._topics)}
        news = False
        for topic in self._topics:
            while behind := [n for n, end in ends[topic].items() if self._at((topic, n)) < end]:
                news = True
                for partition in behind:
                    await self._take((topic, partition), ends[topic][partition])
                    await self._finish(alone)
        return news

    def _at(self, place: TopicPartition) -> int:
        return (self._next or {}).get(place, 0)

    async def _recall(self) -> None:
        """What was noted before is folded, and not noted again."""
        if self._next is not None:
            return
        self._tracking, slices = Tracking(), Slices(self._beat)
        positions: dict[TopicPartition, int] = {}
        for topic in self._topics:
            committed = await self._log.committed(self._group, topic)
            for partition, there in (await extents(self._log, topic)).items():
                # A group that is beyond the end, or below the beginning, knew another log.
                upto = committed.get(partition, 0)
                positions[topic, partition] = upto = upto if there.reaches(upto) else there.first
                records = records_in(self._log, topic, partition, there.first, upto)
                async for record in in_turns(records, slices):
                    self._fold(record)
        self._next = positions

    async def _take(self, place: TopicPartition, end: int) -> None:
        start, notes = self._at(place), dict[tuple[str, str], RunNote]()
        records, stop = await self._read(place, start, min(end, start + CHUNK))
        for record in records:
            if (note := self._fold(record)) is not None:
                run = (note.company, note.run)
                notes[run] = together(notes[run], note) if run in notes else note
            if len(notes) == NOTES:
                stop = record.offset + 1
                break
        self._folded = _Folded(place, stop, deque(notes.values()))

    async def _finish(self, alone: Alone) -> None:
        """An error of the log leaves what is not noted yet to the next try."""
        if self._folded is None:
            return
        place, stop, notes = self._folded

        async def ours() -> None:
            """By a commit of where it stands: an append of nothing is put to no broker."""
            await alone.append([], Reached(self._group, {place: self._at(place)}))

        while notes:
            await self._note(notes[0], ours)
            notes.popleft()
        await alone.append([], Reached(self._group, {place: stop}))
        self._next, self._folded = {**(self._next or {}), place: stop}, None

    async def _read(self, place: TopicPartition, start: int, stop: int) -> tuple[Sequence[Record], int]:
        """All of it before any is folded: what is read again after an error was not folded yet. And up to where."""
        records, size = list[Record](), 0
        async for record in in_turns(records_in(self._log, *place, start, stop), Slices(self._beat)):
            records.append(record)
            size += len(record.value or b"")
            if size > CHUNK_BYTES:
                return records, record.offset + 1
        return records, stop

    def _fold(self, record: Record) -> RunNote | None:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if not isinstance(event, Event) or type(event) not in self._events[record.topic]:
            return None
        try:
            with blamed_on_events():
                return self._tracking.take(event)
        except Untaken as error:
            log.warning("the event at %s is not noted (%s): left out", record.origin, error)
            return None

    async def _note(self, note: RunNote, ours: Ours) -> None:
        """For as long as MLflow takes nobody's. Whatever is this note's own fault holds up no other."""
        blamed, tried = 0, 0
        while True:
            try:
                await self._mlflow.note(note, ours)
                self.noted += 1
                return
            except MlflowAway as error:
                why: Exception = error
                its = isinstance(error, MlflowFails) and await self._takes_another(note.company)
                blamed = blamed + 1 if its else 0
            except (Retry, Stop):
                raise
            except Exception as error:
                why, blamed = error, TRIES
            if blamed >= TRIES:
                break
            log.warning("%s", why)
            await self._pause(PAUSES[min(tried, len(PAUSES) - 1)])
            await ours()
            tried += 1
        self._pass_over(note, why)

    def _pass_over(self, note: RunNote, why: Exception) -> None:
        self.passed_over += 1
        ours = None if isinstance(why, MlflowAway | MlflowRefused) else why
        told = "run %s of %s is not in MLflow as it should be: %s"
        log.error(told, note.run, note.company, why, exc_info=ours, extra=NAMED)

    async def _takes_another(self, company: str) -> bool:
        with suppress(MlflowAway, MlflowRefused):
            await self._mlflow.takes_a_run(company)
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        """Who waits for MLflow gets on."""
        for _ in range(ceil(seconds / LOOK_SECONDS)):
            self._beat()
            await self._sleep(LOOK_SECONDS)

    def _beat(self) -> None:
        self._beats += 1
