"""What lies on the dead-letter topic: found, and sent once more to where it came from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from schemas.codec.codec import decode
from schemas.envelope import caused_by
from schemas.rejected import RecordRedriven, RecordRejected
from schemas.topics import BY_NAME, TopicNames
from streams.fold.dead_letter import CUT, REDRIVEN
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Record, records_in, size_of

TOPIC = "dead-letter"
ALONE = "rillfold-redrive"
"""Whoever redrives does it alone: two at once would each find what the other is about to send."""
AT_ONCE, BYTES_AT_ONCE = 200, 8 << 20
Wanted = Callable[["KeptLetter"], bool]
Identity = tuple[str, str, str, int, bytes]


@dataclass
class KeptLetter:
    """A refused record. Sent again and refused again it is the same letter, at one place more."""

    letter: RecordRejected
    places: list[int] = field(default_factory=list)
    """Offsets at which it was refused, in the order in which that was told."""
    sent: set[int] = field(default_factory=set)
    """Those of them from which it was sent again."""

    @property
    def redriven(self) -> bool:
        """From where it stood last."""
        return self.places[-1] in self.sent

    def stands_at(self, place: str) -> bool:
        source = f"{self.letter.topic}/{self.letter.partition}"
        return any(place == f"{source}/{offset}" for offset in self.places)


async def letters(log: EventLog, names: TopicNames, wanted: Wanted) -> list[KeptLetter]:
    """In the order of the log, each once: a repeat after a crash has the id and the record of the first."""
    return [kept for kept in (await _kept(log, names)).values() if wanted(kept)]


async def _kept(log: EventLog, names: TopicNames) -> dict[Identity, KeptLetter]:
    """A letter and what was sent of it have one key: their order is the log's."""
    kept: dict[Identity, KeptLetter] = {}
    by_place: dict[tuple[str, str, str, int, int], KeptLetter] = {}
    wire = names.wire(TOPIC)
    for partition, start in (await log.starts(wire)).items():
        async for record in records_in(log, wire, partition, start):
            event = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(event, RecordRejected):
                one = kept.setdefault(_identity(event), KeptLetter(event))
                if event.offset not in one.places:
                    one.places.append(event.offset)
                by_place[event.company, event.id, event.topic, event.partition, event.offset] = one
            elif isinstance(event, RecordRedriven):
                place = event.company, event.causation or "", event.topic, event.partition, event.offset
                if (found := by_place.get(place)) is not None:
                    found.sent.add(event.offset)
    return kept


def _identity(letter: RecordRejected) -> Identity:
    """By the id alone, a letter that somebody else wrote would hide this one."""
    record = sha256(repr((letter.key, letter.value)).encode()).digest()
    return letter.company, letter.id, letter.topic, letter.partition, record


async def redrive(log: EventLog, names: TopicNames, chosen: Iterable[RecordRejected], now: int) -> int:
    """Sends the very bytes to the very partition, unless they were sent already. Returns how many went out.

    A letter is data: one that names a place where none of our topics has a record is left where it is. `now`:
    microseconds. Records, and that they were sent, stand in the log together or not at all. `ShutOut` where another
    redrive begins meanwhile.
    """
    async with log.alone(f"{names.prefix}{ALONE}") as alone:
        open_ = await _open(log, names, chosen)
        for some in _in_parts(open_):
            sent = [part for kept in some for part in (_again(kept.letter), _mark(kept, names, now))]
            await alone.append(sent)
    return len(open_)


async def _open(log: EventLog, names: TopicNames, chosen: Iterable[RecordRejected]) -> list[KeptLetter]:
    """Of the chosen those that are to be sent, as the log has them by now."""
    kept, ours = await _kept(log, names), set(map(names.wire, BY_NAME))
    by_topic: dict[str, list[KeptLetter]] = {}
    for identity, letter in {_identity(letter): letter for letter in chosen}.items():
        found = kept.get(identity) or KeptLetter(letter, [letter.offset])
        if letter.topic in ours and not found.redriven and not _cut(letter):
            by_topic.setdefault(letter.topic, []).append(found)
    open_: list[KeptLetter] = []
    for topic, some in by_topic.items():
        ends = await log.ends(topic)
        there = [each for each in some if 0 <= each.places[-1] < ends.get(each.letter.partition, 0)]
        open_ += await _unsent(log, topic, there)
    return open_


def _in_parts(open_: Sequence[KeptLetter]) -> Iterator[list[KeptLetter]]:
    """Nobody reads on behind a part before it is whole."""
    part: list[KeptLetter] = []
    room = BYTES_AT_ONCE
    for kept in open_:
        room -= size_of(_again(kept.letter))
        if part and (room < 0 or len(part) >= AT_ONCE):
            yield part
            part, room = [], BYTES_AT_ONCE - size_of(_again(kept.letter))
        part.append(kept)
    if part:
        yield part


def _cut(letter: RecordRejected) -> bool:
    """Part of a record is not sent again as if it were the whole."""
    return any(header.key == CUT for header in letter.headers)


def _again(letter: RecordRejected) -> Outgoing:
    headers = [(header.key, header.value or b"") for header in letter.headers if header.key != REDRIVEN]
    own = (REDRIVEN, letter.id.encode())
    return Outgoing(letter.topic, letter.key, letter.value, (*headers, own), letter.partition)


def _mark(kept: KeptLetter, names: TopicNames, now: int) -> Outgoing:
    letter, offset = kept.letter, kept.places[-1]
    about = caused_by(letter, f"redriven/{offset}", now)
    return to_outgoing(RecordRedriven(**about, topic=letter.topic, partition=letter.partition, offset=offset), names)


async def _unsent(log: EventLog, topic: str, some: Sequence[KeptLetter]) -> list[KeptLetter]:
    """Without those of which another record stands at their place: such a letter is of another log. And without those
    that were sent though they bear no mark: an older release wrote none."""
    by_partition: dict[int, list[KeptLetter]] = {}
    for each in some:
        by_partition.setdefault(each.letter.partition, []).append(each)
    starts, left = await log.starts(topic), list[KeptLetter]()
    for partition, own in by_partition.items():
        first = max(min(each.places[-1] for each in own), starts[partition])
        stand, sent = dict[int, Record](), dict[tuple[str, bytes | None, bytes | None], int]()
        wanted = {each.places[-1] for each in own}
        async for record in records_in(log, topic, partition, first):
            if record.offset in wanted:
                stand[record.offset] = record
            sent |= {(named, record.key, record.value): record.offset for named in _named(record)}
        for each in own:
            letter, offset = each.letter, each.places[-1]
            ours = offset not in stand or _is_of(letter, stand[offset])
            if ours and sent.get((letter.id, letter.key, letter.value), -1) <= offset:
                left.append(each)
    return left


def _is_of(letter: RecordRejected, record: Record) -> bool:
    return (record.key, record.value) == (letter.key, letter.value)


def _named(record: Record) -> list[str]:
    return [(value or b"").decode("utf-8", "replace") for key, value in record.headers if key == REDRIVEN]
