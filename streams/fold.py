"""The fold of one record batch into one projection: pure, so that a driver, a replay and a worker share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from projections.projection import Projection
from schemas.codec import decode
from schemas.envelope import Event, Origin
from schemas.rejected import Rejected

State = TypeVar("State", bound=msgspec.Struct)


class SourceRecord(Protocol):
    """What a fold needs of a record. The records of every client have it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Batch(NamedTuple):
    """The records of [start, next) of one source partition. Offsets may have gaps; `start` and `next` may not."""

    topic: str
    partition: int
    start: int
    next: int
    records: Sequence[SourceRecord]


class Located(NamedTuple):
    """An event and its place in the batch's partition."""

    offset: int
    timestamp: int
    event: Event


class Refused(NamedTuple):
    """A record that is no event, with its bytes."""

    record: SourceRecord
    rejected: Rejected


class Decoded(NamedTuple):
    """A batch, understood as far as it can be."""

    topic: str
    partition: int
    start: int
    next: int
    events: Sequence[Located]
    refused: Sequence[Refused]


class Folded(NamedTuple, Generic[State]):
    """What some events did: new rows with the offset that changed them last, and the events that follow."""

    rows: Mapping[str, tuple[State, int]]
    outputs: Sequence[Event]


def decode_from(batch: Batch, start: int) -> Decoded:
    """Records below `start` were folded before a crash, or delivered twice: they are not looked at."""
    events: list[Located] = []
    refused: list[Refused] = []
    topic, partition = batch.topic, batch.partition
    for record in batch.records:
        if record.offset < start:
            continue
        event = decode(record.value, Origin(topic, partition, record.offset), record.timestamp, record.headers)
        if isinstance(event, Rejected):
            refused.append(Refused(record, event))
        else:
            events.append(Located(record.offset, record.timestamp, event))
    return Decoded(topic, partition, max(start, batch.start), batch.next, events, refused)


def fold(
    projection: Projection[State], events: Sequence[Located], load: Callable[[Sequence[str]], Mapping[str, State]]
) -> Folded[State]:
    """Each row is read once, folded through its events in order, and kept if it changed."""
    groups = _by_key(projection, events)
    known = load(list(groups))
    rows: dict[str, tuple[State, int]] = {}
    outputs: list[tuple[int, int, Event]] = []
    for key, group in groups.items():
        before = known.get(key)
        state = after = projection.initial(key) if before is None else before
        last = -1
        for located in group:
            after = projection.fold(state, located.event)
            if after is state:
                continue
            state, last = after, located.offset
            if projection.react is not None:
                outputs += _reactions(projection, state, located)
        if last >= 0:
            rows[key] = (state, last)
    return Folded(rows, [event for _, _, event in sorted(outputs, key=_place)])


def _by_key(projection: Projection[Any], events: Sequence[Located]) -> dict[str, list[Located]]:
    groups: dict[str, list[Located]] = {}
    key_of = projection.key
    for located in events:
        key = key_of(located.event)
        if key is None:
            continue
        group = groups.get(key)
        if group is None:
            groups[key] = [located]
        else:
            group.append(located)
    return groups


def _reactions(projection: Projection[State], state: State, cause: Located) -> list[tuple[int, int, Event]]:
    assert projection.react is not None
    # The record's own time, in microseconds: a replay says the same.
    followed = projection.react(state, cause.event, cause.timestamp * 1000)
    return [(cause.offset, n, event) for n, event in enumerate(followed)]


def _place(output: tuple[int, int, Event]) -> tuple[int, int]:
    return output[:2]
