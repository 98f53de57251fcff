"""What lies on the dead-letter topic: found, and sent once more to where it came from."""

from collections.abc import AsyncIterator, Callable, Iterable

from schemas.codec.codec import decode
from schemas.rejected import RecordRejected
from schemas.topics import BY_NAME, TopicNames
from streams.fold.dead_letter import CUT
from streams.log.port import EventLog, Outgoing, Position, records_in

TOPIC = "dead-letter"
REDRIVEN = "rillfold-redriven"
"""A header that names the letter: a record that carries it was sent again, and only once."""
Wanted = Callable[[RecordRejected], bool]


async def letters(log: EventLog, names: TopicNames, wanted: Wanted) -> AsyncIterator[tuple[Position, RecordRejected]]:
    """In the order of the log, each once: a repeat after a crash has the id and the record of the first."""
    seen: set[tuple[str, str, Position]] = set()
    wire = names.wire(TOPIC)
    for partition, start in (await log.starts(wire)).items():
        async for record in records_in(log, wire, partition, start):
            letter = decode(record.value, record.origin, record.timestamp, record.headers)
            if not isinstance(letter, RecordRejected) or not wanted(letter):
                continue
            # By the id alone, a letter that somebody else wrote would hide this one.
            this = letter.company, letter.id, Position(letter.topic, letter.partition, letter.offset)
            if this not in seen:
                seen.add(this)
                yield Position(wire, partition, record.offset), letter


async def redrive(log: EventLog, names: TopicNames, chosen: Iterable[RecordRejected]) -> int:
    """Sends the very bytes to the very partition, unless they were sent already. Returns how many went out.

    A letter is data: one that names a place where none of our topics has a record is left where it is.
    """
    ours = set(map(names.wire, BY_NAME))
    by_topic: dict[str, list[RecordRejected]] = {}
    for letter in chosen:
        if letter.topic in ours:
            by_topic.setdefault(letter.topic, []).append(letter)
    count = 0
    for topic, some in by_topic.items():
        ends = await log.ends(topic)
        there = [letter for letter in some if 0 <= letter.offset < ends.get(letter.partition, 0)]
        done = await _redriven(log, topic, there)
        fresh = [letter for letter in there if letter.id not in done and not _cut(letter)]
        await log.append([_again(letter) for letter in fresh])
        count += len(fresh)
    return count


def _cut(letter: RecordRejected) -> bool:
    """Part of a record is not sent again as if it were the whole."""
    return any(header.key == CUT for header in letter.headers)


def _again(letter: RecordRejected) -> Outgoing:
    headers = [(header.key, header.value or b"") for header in letter.headers if header.key != REDRIVEN]
    own = (REDRIVEN, letter.id.encode())
    return Outgoing(letter.topic, letter.key, letter.value, (*headers, own), letter.partition)


async def _redriven(log: EventLog, topic: str, some: Iterable[RecordRejected]) -> set[str]:
    """The letters that were sent again to this topic. They stand behind the record that was refused."""
    done: set[str] = set()
    starts, after = await log.starts(topic), dict[int, int]()
    for letter in some:
        after[letter.partition] = min(letter.offset, after.get(letter.partition, letter.offset))
    for partition, first in after.items():
        async for record in records_in(log, topic, partition, max(first, starts[partition])):
            done.update((value or b"").decode("utf-8", "replace") for key, value in record.headers if key == REDRIVEN)
    return done
