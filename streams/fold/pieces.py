"""What of a batch is committed at once: rows that fit one record batch, and events that the projection refuses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.envelope import Event
from schemas.errors import Poison
from streams.fold.batch import Decoded, Folded, Found, at_leisure, fold
from streams.fold.shard import Shard
from streams.state.changelog import Marker, Rows, marker_record, refusal_record
from streams.state.refusal import Refusal, RowsTooLarge, refusal

# Under Kafka's default of 1 MiB for a record batch, with room for its header.
BATCH_BYTES = 1_000_000
RECORD_OVERHEAD = 24
PIECE_SECONDS = 0.25
"""So long the fold of one piece takes at most, but for its first event: others wait for the loop meanwhile."""


class Piece(NamedTuple):
    """Rows that fit one record batch with the marker that makes them count, and what follows from their events."""

    rows: Rows
    outputs: Sequence[Event]
    next: int
    refused: Sequence[Refusal] = ()
    size: int = 0
    """Of its rows, in bytes, where that is known."""


class Deadline:
    """Of a piece, from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def over(self) -> bool:
        return time.monotonic() - self._began > PIECE_SECONDS

    def far(self) -> bool:
        """So little is done by now that more of it may be."""
        return time.monotonic() - self._began < PIECE_SECONDS / 4


def whole(shard: Shard[Any], decoded: Decoded, events: Sequence[Found], next_: int, deadline: Deadline) -> Piece:
    """All of these events at once. Raises `Untaken` where one of them cannot be taken, `TooMuchAtOnce` where there are
    others beside it that can wait."""
    folded = fold(shard.projection, events, shard.load, deadline.over if len(events) > 1 else at_leisure)
    rows = shard.encode(folded, decoded.topic)
    rows.append(marker_record(Marker(decoded.topic, decoded.partition, next_)))
    if (size := bytes_of(rows)) > BATCH_BYTES:
        raise RowsTooLarge(size, BATCH_BYTES)
    return Piece(rows, folded.outputs, next_, (), size)


class Taken(NamedTuple):
    """What one event did, or why it is refused, and the rows that say so as they are written."""

    what: Folded[Any] | Refusal
    rows: Rows


class Draft:
    """A piece that is put together event by event, around those that are refused."""

    def __init__(self, shard: Shard[Any], decoded: Decoded) -> None:
        self._shard, self._decoded = shard, decoded
        self._states: dict[str, Any] = {}
        self._rows: dict[bytes, bytes | None] = {}
        self._refused: list[Refusal] = []
        self.outputs: list[Event] = []
        """What follows from the events that were taken."""
        self.outcomes: list[Refusal | None] = []
        """In order: each refusal, and None for each event that was taken into a row."""
        self._size = bytes_of([self._marker(decoded.next)])
        self._deadline = Deadline()
        self._begun = False

    def copy(self) -> Draft:
        """As it stands, with nothing that is yet to be sent."""
        other = Draft(self._shard, self._decoded)
        other._states, other._rows = dict(self._states), dict(self._rows)
        other._refused, other._size, other.outcomes = list(self._refused), self._size, list(self.outcomes)
        other._deadline, other._begun = self._deadline, self._begun
        return other

    def take(self, events: Sequence[Found], unsendable: Mapping[int, Poison]) -> int:
        """How many of them had room and time. What follows from those of `unsendable`, by offset, cannot be sent."""
        for n, found in enumerate(events):
            if self._begun and self._deadline.over():
                return n
            one = self._one(found, unsendable.get(found[0].offset))
            growth = self._growth(one.rows)
            if self._size + growth > BATCH_BYTES:
                return n
            self._size += growth
            self._begun = True
            self._add(one)
        return len(events)

    def _one(self, found: Found, unsendable: Poison | None) -> Taken:
        try:
            taken = self._fold(found)
            if unsendable is None:
                return taken
            why = unsendable
        except Poison as error:
            why = error
        decoded, (record, event) = self._decoded, found
        refused = refusal(self._shard.projection, decoded.topic, decoded.partition, record.offset, event, why)
        return Taken(refused, [refusal_record(refused)])

    def _fold(self, found: Found) -> Taken:
        """Raises `Untaken`, also where the event's rows fit no record batch at all."""
        folded = fold(self._shard.projection, [found], self._load)
        rows = self._shard.encode(folded, self._decoded.topic)
        if (size := bytes_of([*rows, self._marker(self._decoded.next)])) > BATCH_BYTES:
            raise RowsTooLarge(size, BATCH_BYTES)
        return Taken(folded, rows)

    def _add(self, one: Taken) -> None:
        self._rows.update(one.rows)
        if isinstance(one.what, Refusal):
            self._refused.append(one.what)
            self.outcomes.append(one.what)
        else:
            self._states.update((key, state) for key, (state, _) in one.what.rows.items())
            self.outputs += one.what.outputs
            if one.rows:
                self.outcomes.append(None)

    def piece(self, next_: int) -> Piece:
        """What follows from its events is published already."""
        return Piece([*self._rows.items(), self._marker(next_)], (), next_, self._refused)

    def _load(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The rows as the events before have left them."""
        drafted = {key: self._states[key] for key in keys if key in self._states}
        return {**self._shard.load([key for key in keys if key not in drafted]), **drafted}

    def _growth(self, rows: Rows) -> int:
        return bytes_of(rows) - bytes_of((key, self._rows[key]) for key, _ in rows if key in self._rows)

    def _marker(self, next_: int) -> tuple[bytes, bytes]:
        return marker_record(Marker(self._decoded.topic, self._decoded.partition, next_))


def bytes_of(rows: Iterable[tuple[bytes, bytes | None]]) -> int:
    return sum(len(key) + (len(value) if value else 0) + RECORD_OVERHEAD for key, value in rows)
