"""The fold of one record batch into one projection: pure, so that a driver, a replay and a worker share it."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from projections.projection import Projection
from schemas.codec.codec import Incoming, decode_batch
from schemas.codec.primitives import MAX_TIME
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected
from streams.state.refusal import SURELY_SHORT, TooMuchAtOnce, Untaken, blamed_on_events, check_key

State = TypeVar("State", bound=msgspec.Struct)


class SourceRecord(Incoming, Protocol):
    """What a fold needs of a record. The records of every client have it."""

    @property
    def key(self) -> bytes | None: ...


class Batch(NamedTuple):
    """The records of [start, next) of one source partition. Offsets may have gaps; `start` and `next` may not."""

    topic: str
    partition: int
    start: int
    next: int
    records: Sequence[SourceRecord]
    weight: int = 0
    """About how many bytes of memory the records take, where somebody counts them."""


Found = tuple[SourceRecord, Event]
"""A record, and the event that it holds. A bare pair: a class of its own would cost more than a field's decoding."""


Group = list[Any]
"""A company, and then what was found for one row of it."""


class NoEvent(NamedTuple):
    """A record that is no event, with its bytes."""

    record: SourceRecord
    rejected: Rejected


class Decoded(NamedTuple):
    """A batch, understood as far as it can be."""

    topic: str
    partition: int
    start: int
    next: int
    events: Sequence[Found]
    refused: Sequence[NoEvent]


class Folded(NamedTuple, Generic[State]):
    """What some events did: new rows with the offset that changed them last, and the events that follow."""

    rows: Mapping[str, tuple[State, int]]
    outputs: Sequence[Event]


def decode_from(batch: Batch, start: int, here: Set[type[Event]]) -> Decoded:
    """Records below `start` were folded before a crash, or delivered twice: they are not looked at. Nor is what stands
    below the batch: nobody has said that it follows what was folded.

    `here` are the events that belong on this topic. Between topics there is no order: an answer that somebody put
    beside its question would be folded before or after the true one.
    """
    topic, partition, records = batch.topic, batch.partition, batch.records
    start = max(start, batch.start)
    if records and records[0].offset < start:
        records = [record for record in records if record.offset >= start]
    events = decode_batch(topic, partition, records)
    found: list[Any] = list(zip(records, events, strict=True))
    refused: list[NoEvent] = []
    if not here >= set(map(type, events)):
        found = [(record, _at_home(event, record, batch, here)) for record, event in found]
        refused = [NoEvent(record, event) for record, event in found if type(event) is Rejected]
        found = [pair for pair in found if type(pair[1]) is not Rejected]
    return Decoded(topic, partition, start, batch.next, found, refused)


def _at_home(event: Event | Rejected, record: SourceRecord, batch: Batch, here: Set[type[Event]]) -> Event | Rejected:
    if isinstance(event, Rejected) or type(event) in here:
        return event
    origin = Origin(batch.topic, batch.partition, record.offset)
    return Rejected("wrong_topic", f"{event.type} does not belong on {batch.topic}", origin)


Overdue = Callable[[], bool]
LOOKED = 4
"""The clock is looked at once for so many events: a look takes as long as a small event's fold."""


def at_leisure() -> bool:
    """However long it takes."""
    return False


def fold(
    projection: Projection[State],
    events: Sequence[Found],
    load: Callable[[Sequence[str]], Mapping[str, State]],
    overdue: Overdue = at_leisure,
) -> Folded[State]:
    """Each row is read once, folded through its events in order, and kept if it changed.

    Raises `Untaken` where the projection cannot take one of the events, and `TooMuchAtOnce` where it is `overdue`
    before all of them are done; whatever `load` raises comes through.
    """
    with blamed_on_events():
        groups = _by_key(projection, events)
    known = load(list(groups))
    with blamed_on_events():
        return _folded(projection, groups, known, overdue)


def _folded(
    projection: Projection[State], groups: Mapping[str, Group], known: Mapping[str, State], overdue: Overdue
) -> Folded[State]:
    rows: dict[str, tuple[State, int]] = {}
    outputs: list[tuple[int, int, Event]] = []
    step, react, looks = projection.fold, projection.react, LOOKED
    for key, group in groups.items():
        before = known.get(key)
        state = after = projection.initial(key) if before is None else before
        last: SourceRecord | None = None
        for record, event in group[1:]:
            looks -= 1
            if not looks:
                looks = LOOKED
                if overdue():
                    raise TooMuchAtOnce
            after = step(state, event)
            if after is state:
                continue
            state, last = after, record
            if react is not None:
                outputs += _reactions(projection, state, record, event)
        if last is not None:
            rows[key] = (state, last.offset)
    return Folded(rows, [event for _, _, event in sorted(outputs, key=lambda output: output[:2])])


def _by_key(projection: Projection[Any], events: Sequence[Found]) -> dict[str, Group]:
    """Each key is held against the company of each of its events: at once, in most cases."""
    groups: dict[str, Group] = {}
    key_of = projection.key
    for found in events:
        event = found[1]
        key = key_of(event)
        if key is None:
            continue
        group = groups.get(key)
        if group is None:
            if len(key) > SURELY_SHORT or not key.startswith(event.company + "/"):
                check_key(key, event.company)
            groups[key] = [event.company, found]
        else:
            if event.company != group[0]:
                check_key(key, event.company)
            group.append(found)
    return groups


def _reactions(
    projection: Projection[State], state: State, record: SourceRecord, cause: Event
) -> list[tuple[int, int, Event]]:
    assert projection.react is not None
    # The record's own time, in microseconds: a replay says the same. Its sender may have made it up.
    followed = projection.react(state, cause, min(max(0, record.timestamp) * 1000, MAX_TIME))
    if strangers := [event for event in followed if event.company != cause.company]:
        raise Untaken("bad_output", f"{strangers[0].type} of company {strangers[0].company} follows from {cause.type}")
    return [(record.offset, n, event) for n, event in enumerate(followed)]
