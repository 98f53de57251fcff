"""Ground that was folded before, by whoever: what was refused there stays refused, and nothing of it is told twice."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import NamedTuple

from schemas.codec.codec import decode
from schemas.rejected import RecordRejected
from schemas.topics import TOPIC_OF, TopicNames
from streams.errors import UnknownTopic
from streams.fairness.slices import Slices, in_turns, unheard
from streams.fold.batch import Decoded, SourceRecord
from streams.log.port import EventLog, TopicPartition, records_in


class LetterBytes(NamedTuple):
    """What a letter holds of its record: so many bytes of key and value, all of them unless it was cut."""

    key: int
    value: int
    sha256: bytes

    def are_of(self, record: SourceRecord) -> bool:
        """A letter is data, and whoever wrote it may name a place where another record stands."""
        return _hash((record.key or b"")[: self.key], (record.value or b"")[: self.value]) == self.sha256


class Letters:
    """Of one source partition: which of its records have a letter. The letter says what was refused, not the codec of
    today: a registry may have learned since, and a release."""

    def __init__(self) -> None:
        self._bytes: dict[int, LetterBytes] = {}

    def put(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        key, value = key or b"", value or b""
        self._bytes[offset] = LetterBytes(len(key), len(value), _hash(key, value))

    def hold(self, record: SourceRecord) -> bool:
        known = self._bytes.get(record.offset)
        return known is not None and known.are_of(record)

    def __len__(self) -> int:
        return len(self._bytes)


async def letters_of(
    event_log: EventLog,
    names: TopicNames,
    sources: Collection[TopicPartition],
    since: int | None = None,
    beat: Callable[[], None] = unheard,
) -> Mapping[TopicPartition, Letters]:
    """By source partition, as on the wire. `since`, in milliseconds: only what was told from then on."""
    found = {source: Letters() for source in sources}
    wire, slices = names.wire(TOPIC_OF[RecordRejected].name), Slices(beat)
    try:
        starts = await event_log.starts(wire) if since is None else await event_log.offsets_at(wire, since)
    except UnknownTopic:
        return found
    ends = await event_log.ends(wire)
    for partition, start in starts.items():
        async for record in in_turns(records_in(event_log, wire, partition, start, ends[partition]), slices):
            letter = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(letter, RecordRejected) and (own := found.get((letter.topic, letter.partition))) is not None:
                own.put(letter.offset, letter.key, letter.value)
    return found


class LetterReading:
    """For all that a worker takes over at once: letters of any age are read once for all of it."""

    def __init__(self, event_log: EventLog, names: TopicNames, sources: Collection[TopicPartition]) -> None:
        self._log, self._names, self._sources = event_log, names, sources
        self._all: Mapping[TopicPartition, Letters] | None = None
        self._reading = asyncio.Lock()

    async def of(self, source: TopicPartition, since: int | None) -> Letters:
        if since is not None:
            return (await letters_of(self._log, self._names, (source,), since))[source]
        async with self._reading:
            if self._all is None:
                self._all = await letters_of(self._log, self._names, self._sources)
        return self._all[source]


class OldGround:
    """Of one source partition what the log held when its rows were taken over. Behind it lies what nobody folded."""

    def __init__(self, end: int, anew: bool, reading: LetterReading) -> None:
        """`anew`: a projection begins on it, so that letters of any age may be about it."""
        self.end = end
        self._anew, self._reading = anew, reading
        self._letters: Letters | None = None

    async def judged(self, decoded: Decoded) -> Decoded:
        """What has a letter is no event, and needs no second letter."""
        if not decoded.events and not decoded.refused:
            return decoded
        if self._letters is None:
            self._letters = await self._read(decoded)
        letters = self._letters
        if not letters:
            return decoded
        events = [found for found in decoded.events if not letters.hold(found[0])]
        refused = [each for each in decoded.refused if not letters.hold(each.record)]
        return decoded._replace(events=events, refused=refused)

    def told(self, decoded: Decoded) -> None:
        """Its letters are in the log now. Who reads on to a later end has made the ground longer for those behind."""
        assert self._letters is not None, "it was judged before"
        for record, _ in decoded.refused:
            self._letters.put(record.offset, record.key, record.value)
        self.end = max(self.end, decoded.next)

    async def _read(self, decoded: Decoded) -> Letters:
        """With the first batch: a letter is younger than the record that it is about, if that does not lie."""
        times = [found[0].timestamp for found in decoded.events] + [each.record.timestamp for each in decoded.refused]
        since = None if self._anew else max(0, min(times))
        return await self._reading.of((decoded.topic, decoded.partition), since)


def _hash(key: bytes, value: bytes) -> bytes:
    return sha256(b"%d/" % len(key) + key + value).digest()[:16]
