"""The port of a read model, and the loop that keeps one up to date."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from projections.projection import Projection
from schemas.errors import Retry
from streams.errors import RETRY_SECONDS, Fenced
from streams.health.watch import Counts, Sight
from streams.log.port import EventLog, Record, Subscription, TopicPartition
from streams.state.changelog import RESERVED, Marker, marker_of, refusal_of, refused_at, spelled, topic_of
from streams.state.refusal import Refusal, said

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
POLL_RECORDS = 20_000
# A poll that brings less than BEHIND has nearly reached the end. What waits behind a fuller one is taken along, each
# row once, up to so many rows (for memory) and records (for time).
BEHIND, MORE_SECONDS = 5_000, 0.05
ROWS_AT_ONCE, RECORDS_AT_ONCE = 100_000, 500_000


class RawRow(msgspec.Struct, frozen=True):
    """A changelog value whose row stays as it is."""

    at: tuple[str, int, int]
    row: msgspec.Raw


class Change(NamedTuple):
    """The newest value of a row; None where it was removed."""

    key: bytes
    """As it stands in the changelog."""
    offset: int
    """In the changelog: a row never goes back to a lower one."""
    value: RawRow | None
    unreadable: str = ""
    """Why it is no row of ours: the read model sets it aside."""

    @property
    def text(self) -> str:
        return spelled(self.key)


class Changes(NamedTuple):
    """A stretch of one changelog partition, each row once, up to but without `next`."""

    projection: Projection[Any]
    changelog: str
    partition: int
    next: int
    rows: Sequence[Change]
    markers: Sequence[Marker]
    refused: Sequence[Refusal] = ()
    """Events that the projection does not take."""
    taken_back: Sequence[tuple[str, int, int]] = ()
    """Topics, partitions and offsets of which that is said no more: other records stand there."""


class Sink(Protocol):
    """Keeps rows and its own position in one transaction. A row that it cannot hold goes aside; the others go on."""

    @property
    def set_aside(self) -> int:
        """Rows that went aside since the process began."""
        ...

    @property
    def beats(self) -> int:
        """Signs that a write gets on."""
        ...

    async def take(self, changelog: str, partition: int) -> int:
        """Ours from now on; an earlier holder is shut out. Returns the first changelog offset that is not in here.

        Called while a write is under way, it waits for that one.
        """
        ...

    async def empty(self, projection: Projection[Any], changelog: str, partition: int) -> None:
        """The changelog was made anew: what is here belongs to the old one."""
        ...

    async def write(self, changes: Sequence[Changes]) -> None:
        """All or nothing. Raises `Fenced` if one of the partitions was taken by another."""
        ...


_decoder = msgspec.json.Decoder(RawRow)


class Follower:
    """One member of a group of sink workers."""

    def __init__(self, sink: Sink, projections: Sequence[Projection[Any]], prefix: str = "") -> None:
        self._sink = sink
        self._projections = {topic_of(projection, prefix): projection for projection in projections}
        self._next: dict[TopicPartition, int] = {}
        """Everything below is in the sink."""
        self._gathered: Mapping[TopicPartition, Changes] = {}
        """Read, and not yet written."""
        self._held: frozenset[TopicPartition] | None = None
        self.rows = 0
        """Written so far."""

    def sight(self) -> Sight:
        """May be asked from another thread."""
        held = self._held
        if held is None:
            return Sight("joining", {})
        return Sight("working", {tp: self._next.get(tp) for tp in held}, self._sink.beats)

    def counts(self) -> Counts:
        return {
            "rows_written": ("Rows written to the read model.", self.rows),
            "rows_set_aside": ("Rows that the read model could not hold.", self._sink.set_aside),
        }

    async def run(self, event_log: EventLog, group: str) -> None:
        async with event_log.subscribe(group, sorted(self._projections)) as subscription:
            while True:
                try:
                    await self.step(subscription, event_log)
                except Fenced as error:
                    log.info("%s", error)
                except Retry as error:
                    log.warning("%s", error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def step(self, subscription: Subscription, event_log: EventLog) -> None:
        """Write what the last step gathered, rows and positions at once, and meanwhile gather what came since."""
        ready, self._gathered = self._gathered, {}
        writing, gathering = self._write(ready, subscription), self._gather(ready, subscription, event_log)
        for error in filter(None, await asyncio.gather(writing, gathering, return_exceptions=True)):
            # Nothing of what was gathered is in the sink, and the next take says so.
            self._gathered = {}
            self._next.clear()
            raise error

    async def _write(self, ready: Mapping[TopicPartition, Changes], subscription: Subscription) -> None:
        if not ready:
            return
        await self._sink.write(list(ready.values()))
        self.rows += sum(len(changes.rows) for changes in ready.values())
        written = {tp: changes.next for tp, changes in ready.items() if tp in self._next}
        self._next |= written
        await subscription.commit(written)

    async def _gather(
        self, ready: Mapping[TopicPartition, Changes], subscription: Subscription, event_log: EventLog
    ) -> None:
        """The further behind, the fewer writes a record costs: a row is written once, however often it changed."""
        gathered = {tp: Newest(changes.next) for tp, changes in ready.items()}
        records, seconds = 0, POLL_SECONDS
        while True:
            polled = await subscription.poll(seconds, POLL_RECORDS)
            taken = await self._take(subscription, event_log)
            # What was polled of a partition just taken began at the group's offset, not at ours: it comes again.
            kept = self._next.keys() - taken
            gathered = {tp: newest for tp, newest in gathered.items() if tp in kept}
            for tp in polled.keys() & kept:
                gathered.setdefault(tp, Newest(self._next[tp])).add(polled[tp])
            fetched = sum(map(len, polled.values()))
            records += fetched
            rows = sum(len(newest.records) for newest in gathered.values())
            if fetched < BEHIND or rows >= ROWS_AT_ONCE or records >= RECORDS_AT_ONCE:
                break
            seconds = MORE_SECONDS
        fresh = {tp: newest for tp, newest in gathered.items() if newest.records}
        self._gathered = {tp: changes_of(self._projections[tp[0]], tp, newest) for tp, newest in fresh.items()}

    async def _take(self, subscription: Subscription, event_log: EventLog) -> frozenset[TopicPartition]:
        assigned = self._held = subscription.assignment()
        for gone in self._next.keys() - assigned:
            del self._next[gone]
        taken = frozenset(assigned - self._next.keys())
        for tp in sorted(taken):
            self._next[tp] = await self._begin(tp, event_log)
            await subscription.seek(tp, self._next[tp])
        return taken

    async def _begin(self, tp: TopicPartition, event_log: EventLog) -> int:
        topic, partition = tp
        start = await self._sink.take(topic, partition)
        if start <= (await event_log.ends(topic))[partition]:
            return start
        log.warning("%s/%s ends before what is known of it: its rows are read again", topic, partition)
        await self._sink.empty(self._projections[topic], topic, partition)
        return 0


class Newest:
    """Of a stretch of one changelog partition the newest record of each key."""

    def __init__(self, start: int) -> None:
        self.next = start
        self.records: dict[bytes, Record] = {}

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.offset >= self.next:
                self.records[record.key or b""] = record
                self.next = record.offset + 1


def changes_of(projection: Projection[Any], tp: TopicPartition, newest: Newest) -> Changes:
    rows: list[Change] = []
    markers: list[Marker] = []
    refused: list[Refusal] = []
    taken_back: list[tuple[str, int, int]] = []
    for key, record in newest.records.items():
        if not key.startswith(RESERVED):
            rows.append(_change(key, record.offset, record.value))
            continue
        try:
            found = marker_of(key, record.value) or refusal_of(key, record.value)
        except msgspec.MsgspecError as error:
            log.warning("%s/%d/%d is no record of ours (%s): left out", *tp, record.offset, error)
            continue
        if isinstance(found, Marker):
            markers.append(found)
        elif found is not None:
            refused.append(found)
        elif record.value is None and (place := refused_at(key)) is not None:
            taken_back.append(place)
    return Changes(projection, *tp, newest.next, rows, markers, refused, taken_back)


def _change(key: bytes, offset: int, value: bytes | None) -> Change:
    try:
        return Change(key, offset, None if value is None else _decoder.decode(value))
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return Change(key, offset, None, said(error))
