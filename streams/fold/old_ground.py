"""Ground that was folded before, by whoever: what was refused there stays refused, and nothing of it is told twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from schemas.codec.codec import decode
from schemas.rejected import REACTION_FAILED, RecordRejected
from schemas.topics import TOPIC_OF, TopicNames
from streams.errors import UnknownTopic
from streams.fairness.slices import Slices, in_turns, unheard
from streams.fold.batch import Decoded, SourceRecord
from streams.fold.dead_letter import CUT, size_with_headers
from streams.log.port import EventLog, TopicPartition, ends_of, records_in

LOOK_BACK = 2 * 3_600_000
"""A broker takes a record that is dated an hour ahead (`message.timestamp.after.max.ms`), and clocks differ."""


class LetterBytes(NamedTuple):
    """What a letter holds of its record: its time, and bytes of key and value, all of them unless it was cut."""

    timestamp: int
    """Where a topic was made anew, the very bytes may stand at one place twice: they are two records."""
    key: int
    value: int
    cut: bytes | None
    """How many bytes its record has in all, where the letter does not hold them."""
    sha256: bytes

    @classmethod
    def of(cls, told: SourceRecord | RecordRejected, cut: bytes | None = None) -> LetterBytes:
        key, value = told.key or b"", told.value or b""
        return cls(told.timestamp, len(key), len(value), cut, _hash(key, value))

    def are_of(self, record: SourceRecord) -> bool:
        """A letter is data, and whoever wrote it may name a place where another record stands."""
        key, value = record.key or b"", record.value or b""
        if self.cut is None:
            whole = (len(key), len(value)) == (self.key, self.value)
        else:
            whole = self.cut == b"%d" % size_with_headers(record)
        whole = whole and self.timestamp == record.timestamp
        return whole and _hash(key[: self.key], value[: self.value]) == self.sha256


class Letters:
    """Of one source partition: which of its records have a letter. The letter says what was refused, not the codec of
    today: a registry may have learned since, and a release. Of several about one place none hides another."""

    def __init__(self) -> None:
        self._first: dict[int, LetterBytes] = {}
        self._more: dict[int, set[LetterBytes]] = {}

    def put(self, offset: int, letter: LetterBytes) -> None:
        if self._first.setdefault(offset, letter) != letter:
            self._more.setdefault(offset, set()).add(letter)

    def add(self, others: Letters) -> None:
        for offset, letter in others._first.items():
            self.put(offset, letter)
        for offset, letters in others._more.items():
            for letter in letters:
                self.put(offset, letter)

    def hold(self, record: SourceRecord) -> bool:
        first = self._first.get(record.offset)
        if first is None:
            return False
        return first.are_of(record) or any(each.are_of(record) for each in self._more.get(record.offset, ()))

    def __len__(self) -> int:
        return len(self._first)


async def letters_of(
    event_log: EventLog,
    names: TopicNames,
    first: Mapping[TopicPartition, int],
    since: int | None = None,
    beat: Callable[[], None] = unheard,
) -> Mapping[TopicPartition, Letters]:
    """By source partition, as on the wire: about its records from `first` on. `since`, in milliseconds: only what was
    told from then on."""
    found = {source: Letters() for source in first}
    wire, slices = names.wire(TOPIC_OF[RecordRejected].name), Slices(beat)
    try:
        starts = await event_log.starts(wire) if since is None else await event_log.offsets_at(wire, since)
    except UnknownTopic:
        return found
    ends = await event_log.ends(wire)
    there, _ = await ends_of(event_log, (topic for topic, _ in first))  # a letter about what is not there is nobody's
    for partition, start in starts.items():
        async for record in in_turns(records_in(event_log, wire, partition, start, ends[partition], beat), slices):
            letter = decode(record.value, record.origin, record.timestamp, record.headers)
            if not isinstance(letter, RecordRejected) or letter.reason == REACTION_FAILED:
                continue  # the latter is about a good event: folds have taken it
            place = letter.topic, letter.partition
            if (own := found.get(place)) is not None and first[place] <= letter.offset < there.get(place, 0):
                cut = next((header.value or b"" for header in letter.headers if header.key == CUT), None)
                own.put(letter.offset, LetterBytes.of(letter, cut))
    return found


class LetterReading:
    """For all that a worker takes over at once: letters are read once for all of it, and again for an older record.

    What a later reading finds is added: letters that were told meanwhile stay known, whoever had it read. There may be
    millions of letters: those about what is folded are nobody's, and who reads says so.
    """

    def __init__(
        self,
        event_log: EventLog,
        names: TopicNames,
        first: Mapping[TopicPartition, int],
        beat: Callable[[], None] = unheard,
    ) -> None:
        """`first`: of each source the first offset that may be folded yet."""
        self._log, self._names, self._first, self._beat = event_log, names, dict(first), beat
        self._letters = {source: Letters() for source in first}
        self._begun = False
        self._since: int | None = None
        self._reading = asyncio.Lock()

    async def of(self, source: TopicPartition, since: int | None, offset: int) -> Letters:
        """`offset`: the first that is asked about. It is lower than any before where a marker went back."""
        async with self._reading:
            if not self._begun or not self._covers(since) or offset < self._first[source]:
                first = self._first | {source: min(offset, self._first[source])}
                found = await letters_of(self._log, self._names, first, since, self._beat)
                for each, letters in found.items():
                    self._letters[each].add(letters)
                self._begun, self._since, self._first = True, since, first
        return self._letters[source]

    def _covers(self, since: int | None) -> bool:
        return self._since is None or (since is not None and since >= self._since)


class Since:
    """From when on the log is looked at for what was said of records: two hours before the first.

    Their times are their producers' word. Where an older one comes, all of the log is looked at, and no third time.
    """

    def __init__(self) -> None:
        self.time: int | None = None
        """In milliseconds. None: from its beginning."""
        self._begun = False

    def reaches(self, time: int) -> bool:
        """False where the log is to be looked at again, from `time` on as it stands then."""
        if not self._begun:
            self._begun, self.time = True, max(0, time - LOOK_BACK)
            return False
        if self.time is None or time >= self.time:
            return True
        self.time = None
        return False


class OldGround:
    """Of one source partition what the log held when its rows were taken over. Behind it lies what nobody folded."""

    def __init__(self, end: int, anew: bool, reading: LetterReading) -> None:
        """`anew`: a projection begins on it, so that letters of any age may be about it."""
        self.end = end
        self._since, self._reading = None if anew else Since(), reading
        self._letters: Letters | None = None
        self._from = 0

    async def judged(self, decoded: Decoded) -> Decoded:
        """What has a letter is no event, and needs no second letter."""
        if not decoded.events and not decoded.refused:
            return decoded
        letters = self._letters = await self._known(decoded)
        if not letters:
            return decoded
        events = [found for found in decoded.events if not letters.hold(found[0])]
        refused = [each for each in decoded.refused if not letters.hold(each.record)]
        return decoded._replace(events=events, refused=refused)

    def told(self, decoded: Decoded) -> None:
        """Its letters are in the log now. Who reads on to a later end has made the ground longer for those behind."""
        assert self._letters is not None, "it was judged before"
        for record, _ in decoded.refused:
            self._letters.put(record.offset, LetterBytes.of(record))
        self.end = max(self.end, decoded.next)

    async def _known(self, decoded: Decoded) -> Letters:
        """A letter is younger than the record that it is about, if that does not lie."""
        if self._since is not None and not self._since.reaches(_oldest(decoded)):
            self._letters = None
        first = min(record.offset for record in _records(decoded))
        if self._letters is None or first < self._from:
            since = None if self._since is None else self._since.time
            letters = await self._reading.of((decoded.topic, decoded.partition), since, first)
            self._from = first
            return letters
        return self._letters


def _oldest(decoded: Decoded) -> int:
    return min(record.timestamp for record in _records(decoded))


def _records(decoded: Decoded) -> list[SourceRecord]:
    return [found[0] for found in decoded.events] + [each.record for each in decoded.refused]


def _hash(key: bytes, value: bytes) -> bytes:
    return sha256(b"%d/" % len(key) + key + value).digest()[:16]
