"""Refused records are sent once more, to where they came from. A letter is data: the log decides what of it is so.

Where a reaction has failed over a record, nothing is sent: it is tried again, by the mark alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.envelope import caused_by
from schemas.rejected import REACTION_FAILED, RecordRedriven, RecordRejected
from schemas.topics import TopicNames
from streams.errors import TooLarge
from streams.fold.dead_letter import CUT, REDRIVEN
from streams.history.letters import KeptLetter, identity_of, kept_as, kept_letters, known_by, sent_as, sources_there
from streams.log.outgoing import to_outgoing
from streams.log.port import Alone, EventLog, Extent, Outgoing, TopicPartition, records_in, size_of

ALONE = "rillfold-redrive"
"""Whoever redrives does it alone: two at once would each find what the other is about to send."""
AT_ONCE, BYTES_AT_ONCE = 200, 8 << 20
LEFT_OUT: Mapping[str, str] = {
    "cut": "the letter holds the record's beginning alone; the record stands where it was refused",
    "too_large": "the record is larger than its topic takes today",
    "gone": "the record is not in the log any more, and nothing else bears the letter out: --gone sends it",
    "marked": "the record is not in the log any more, and a mark says that it was sent again",
    "elsewhere": "no such record stands at the place that the letter names",
    "unread": "the record is not in the log any more, and a reaction is tried again over the record itself",
}
"""Why a letter was not sent, in words."""


class LeftOut(NamedTuple):
    letter: RecordRejected
    why: str
    """One of LEFT_OUT."""


class Redriven(NamedTuple):
    sent: int
    left_out: Sequence[LeftOut]
    """By name. What had been sent before is not among them."""


class _Chosen(NamedTuple):
    letter: RecordRejected
    kept: KeptLetter


class _Open(NamedTuple):
    letter: RecordRejected
    offset: int
    """Where the record stands that is to be sent again."""


class _Seen(NamedTuple):
    """What a source holds."""

    stand: Mapping[int, bytes]
    sent: Mapping[tuple[str, bytes], int]
    """By letter and bytes, where a record that was sent again stands last."""


async def redrive(
    log: EventLog, names: TopicNames, chosen: Iterable[RecordRejected], now: int, gone: bool = False
) -> Redriven:
    """Sends the very bytes to the very partition, unless they were sent already: the source itself says so.

    A letter is data. One whose record does not stand at any place where it was refused is left out, by name; `gone`
    takes those at their word whose place is not in the log any more. One that cannot be sent holds up no other.
    `now`: microseconds. Records, and that they were sent, stand in the log together or not at all. `ShutOut` where
    another redrive begins meanwhile.
    """
    async with log.alone(f"{names.prefix}{ALONE}") as alone:
        open_, left = await _judged(log, names, chosen, gone)
        too_large = [each for part in _in_parts(open_) for each in await _send(alone, part, names, now)]
    left += [LeftOut(each.letter, "too_large") for each in too_large]
    return Redriven(len(open_) - len(too_large), left)


async def _judged(
    log: EventLog, names: TopicNames, chosen: Iterable[RecordRejected], gone: bool
) -> tuple[list[_Open], list[LeftOut]]:
    """Of the chosen those that are to be sent, as the log has them by now, and those that are not."""
    whole = {identity_of(letter): letter for letter in chosen}
    kept = await kept_letters(log, names, lambda letter: identity_of(letter) in whole, bare=True)
    by_source: dict[TopicPartition, list[_Chosen]] = {}
    for identity, letter in whole.items():
        one = _Chosen(letter, kept.get(identity) or kept_as(letter, bare=True))
        by_source.setdefault((letter.topic, letter.partition), []).append(one)
    there = await sources_there(log, names, {topic for topic, _ in by_source})
    judged: list[_Open | LeftOut | None] = []
    for source, some in by_source.items():
        extent = there.get(source, Extent(0, 0))
        refused = [each for each in some if not each.kept.of_reaction]
        seen = await _seen(log, source, extent, refused)
        judged += [_judge(each, extent, seen, gone) for each in refused]
        judged += [_judge_reaction(each, extent) for each in some if each.kept.of_reaction]
    open_ = [each for each in judged if isinstance(each, _Open)]
    return open_, [each for each in judged if isinstance(each, LeftOut)]


def _judge(one: _Chosen, extent: Extent, seen: _Seen, gone: bool) -> _Open | LeftOut | None:
    """None: it was sent already."""
    letter, kept = one
    if any(header.key == CUT for header in letter.headers):
        return LeftOut(letter, "cut")
    there = [offset for offset in kept.places if seen.stand.get(offset) == kept.record]
    below = [offset for offset in kept.places if 0 <= offset < extent.first]
    if not there and not below:
        return LeftOut(letter, "elsewhere")
    offset = max(there or below)
    if seen.sent.get((letter.id, kept.record), -1) > offset:
        return None
    if not there and offset in kept.marks:
        return LeftOut(letter, "marked")
    return _Open(letter, offset) if there or gone else LeftOut(letter, "gone")


def _judge_reaction(one: _Chosen, extent: Extent) -> _Open | LeftOut | None:
    """What is tried again is the record itself, where it stands."""
    letter, kept = one
    if kept.redriven:
        return None
    if extent.first <= letter.offset < extent.end:
        return _Open(letter, letter.offset)
    return LeftOut(letter, "unread" if 0 <= letter.offset < extent.first else "elsewhere")


async def _seen(log: EventLog, source: TopicPartition, extent: Extent, some: Sequence[_Chosen]) -> _Seen:
    """An older release marked nothing: of what it sent, the source alone knows."""
    places = {offset for each in some for offset in each.kept.places if 0 <= offset < extent.end}
    stand, sent = dict[int, bytes](), dict[tuple[str, bytes], int]()
    if not places:
        return _Seen(stand, sent)
    ids = {each.letter.id for each in some}
    async for record in records_in(log, *source, max(min(places), extent.first), extent.end):
        if record.offset in places:
            stand[record.offset] = known_by(record)
        sent.update(((name, known_by(record)), record.offset) for name in sent_as(record) if name in ids)
    return _Seen(stand, sent)


async def _send(alone: Alone, part: Sequence[_Open], names: TopicNames, now: int) -> Sequence[_Open]:
    """Returns those that their topic does not take: what was read once may be more than may be written."""
    try:
        await alone.append([record for each in part for record in _sent(each, names, now)])
    except TooLarge:
        if len(part) == 1:
            return part
        half = len(part) // 2
        return [*await _send(alone, part[:half], names, now), *await _send(alone, part[half:], names, now)]
    return ()


def _in_parts(open_: Sequence[_Open]) -> Iterator[list[_Open]]:
    """Nobody reads on behind a part before it is whole."""
    part: list[_Open] = []
    room = BYTES_AT_ONCE
    for each in open_:
        room -= size_of(_again(each.letter))
        if part and (room < 0 or len(part) >= AT_ONCE):
            yield part
            part, room = [], BYTES_AT_ONCE - size_of(_again(each.letter))
        part.append(each)
    if part:
        yield part


def _again(letter: RecordRejected) -> Outgoing:
    headers = [(header.key, header.value or b"") for header in letter.headers if header.key != REDRIVEN]
    own = (REDRIVEN, letter.id.encode())
    return Outgoing(letter.topic, letter.key, letter.value, (*headers, own), letter.partition)


def _sent(each: _Open, names: TopicNames, now: int) -> Sequence[Outgoing]:
    """Folds have taken what a reaction failed over: it is not sent again, the mark has the reaction try again."""
    letter, offset = each
    if letter.reason == REACTION_FAILED:
        return [_mark(each, names, now, f"redriven/{offset}/{now}")]
    return [_again(letter), _mark(each, names, now, f"redriven/{offset}")]


def _mark(each: _Open, names: TopicNames, now: int, as_what: str) -> Outgoing:
    letter, offset = each
    about = caused_by(letter, as_what, now)
    return to_outgoing(RecordRedriven(**about, topic=letter.topic, partition=letter.partition, offset=offset), names)
