"""What lies on the dead-letter topic, and what of it was sent once more."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from schemas.codec.codec import decode
from schemas.rejected import REACTION_FAILED, RecordRedriven, RecordRejected
from schemas.topics import BY_NAME, TopicNames
from streams.errors import UnknownTopic
from streams.fold.dead_letter import REDRIVEN
from streams.log.port import EventLog, Extent, Outgoing, Record, TopicPartition, extents, records_in

TOPIC = "dead-letter"
SPAN = 60_000
"""Milliseconds: what is sent again and its mark are written at once."""
LOOKED_AT = 100_000
"""Offsets in which the record of a mark is looked for. Beyond that the list does not say that it was sent."""
Wanted = Callable[[RecordRejected], bool]
Identity = tuple[str, str, str, int, bytes]


@dataclass
class KeptLetter:
    """A refused record. Sent again and refused again it is the same letter, at one place more."""

    letter: RecordRejected
    record: bytes
    """What its bytes are known by."""
    size: int
    """Bytes of the record's value that the letter has."""
    places: list[int]
    """Offsets at which it was refused, in the order in which that was told."""
    marks: dict[int, int] = field(default_factory=dict)
    """Those of them from which it was sent again, as somebody wrote, and when: milliseconds."""

    @property
    def of_reaction(self) -> bool:
        """Over a good event: a mark does not tell that it was sent, but has it tried again."""
        return self.letter.reason == REACTION_FAILED

    @property
    def redriven(self) -> bool:
        """From where it stood last."""
        return self.places[-1] in self.marks


async def letters(log: EventLog, names: TopicNames, wanted: Wanted, bare: bool = False) -> list[KeptLetter]:
    """In the order of the log, each once: a repeat after a crash has the id and the record of the first.

    `bare`: without the records' bytes. A mark counts only where what it tells of stands in the log.
    """
    kept = list((await kept_letters(log, names, wanted, bare)).values())
    await _take_false_marks_off(log, names, kept)
    return kept


async def kept_letters(log: EventLog, names: TopicNames, wanted: Wanted, bare: bool) -> dict[Identity, KeptLetter]:
    """With marks as they were written. A letter and what was sent of it have one key: their order is the log's."""
    kept: dict[Identity, KeptLetter] = {}
    by_place: dict[tuple[str, str, str, int, int], KeptLetter] = {}
    wire = names.wire(TOPIC)
    for partition, start in (await log.starts(wire)).items():
        async for record in records_in(log, wire, partition, start):
            event = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(event, RecordRejected):
                identity = identity_of(event)
                if identity not in kept and not wanted(event):
                    continue
                one = kept.setdefault(identity, kept_as(event, bare))
                if event.offset not in one.places:
                    one.places.append(event.offset)
                elif event.reason == REACTION_FAILED:
                    one.marks.pop(event.offset, None)  # it was tried again, and failed again
                by_place[event.company, event.id, event.topic, event.partition, event.offset] = one
            elif isinstance(event, RecordRedriven):
                place = event.company, event.causation or "", event.topic, event.partition, event.offset
                if (found := by_place.get(place)) is not None:
                    found.marks[event.offset] = record.timestamp
    return kept


def kept_as(letter: RecordRejected, bare: bool) -> KeptLetter:
    known, size = known_by(letter), len(letter.value or b"")
    if bare:
        letter = msgspec.structs.replace(letter, key=None, value=None, headers=())
    return KeptLetter(letter, known, size, [letter.offset])


def identity_of(letter: RecordRejected) -> Identity:
    """By the id alone, a letter that somebody else wrote would hide this one."""
    return letter.company, letter.id, letter.topic, letter.partition, known_by(letter)


def known_by(record: RecordRejected | Record | Outgoing) -> bytes:
    return sha256(repr((record.key, record.value)).encode()).digest()


def sent_as(record: Record) -> list[str]:
    """The letters that a record names as its own. Whoever sent it may have written anything there."""
    return [(value or b"").decode("utf-8", "replace") for key, value in record.headers if key == REDRIVEN]


async def sources_there(log: EventLog, names: TopicNames, named: Collection[str]) -> dict[TopicPartition, Extent]:
    """Of the topics that letters name those that are ours, with what their partitions hold."""
    there: dict[TopicPartition, Extent] = {}
    for topic in set(named) & set(map(names.wire, BY_NAME)):
        try:
            held = await extents(log, topic)
        except UnknownTopic:
            continue
        there.update(((topic, partition), extent) for partition, extent in held.items())
    return there


async def _take_false_marks_off(log: EventLog, names: TopicNames, kept: Sequence[KeptLetter]) -> None:
    """A mark is data: whoever wrote it would have a record lie for ever, as if it had been sent."""
    marked = [each for each in kept if each.redriven and not each.of_reaction]
    there = await sources_there(log, names, {each.letter.topic for each in marked})
    spans: dict[tuple[str, int, int], list[KeptLetter]] = {}
    for each in marked:
        span = max(0, each.marks[each.places[-1]]) // SPAN
        spans.setdefault((each.letter.topic, each.letter.partition, span), []).append(each)
    for (topic, partition, span), some in spans.items():
        extent = there.get((topic, partition))
        sent = await _sent_from(log, (topic, partition), max(0, span - 1) * SPAN, extent, some) if extent else ()
        for each in some:
            if (each.letter.id, each.record) not in sent:
                del each.marks[each.places[-1]]


async def _sent_from(
    log: EventLog, place: TopicPartition, since: int, extent: Extent, some: Sequence[KeptLetter]
) -> set[tuple[str, bytes]]:
    """Those that stand behind the place from which they were sent: what was sent before that is another time's."""
    topic, partition = place
    start = (await log.offsets_at(topic, since))[partition]
    behind = {(each.letter.id, each.record): each.places[-1] for each in some}
    found: set[tuple[str, bytes]] = set()
    async for record in records_in(log, topic, partition, start, min(extent.end, start + LOOKED_AT)):
        known = [(name, known_by(record)) for name in sent_as(record)]
        found.update(each for each in known if record.offset > behind.get(each, record.offset))
        if len(found) == len(behind):
            break
    return found
