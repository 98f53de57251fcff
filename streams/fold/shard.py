"""One partition of one projection in the hands of a worker: its rows, and how far each source has been folded."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from projections.projection import Projection
from streams.errors import NAMED, OwnershipLost, RowsUnreadable, SourcesRenamed
from streams.fold.batch import Folded
from streams.fold.circuit import COMPANIES, ReleaseCircuit
from streams.log.port import Extent
from streams.state.changelog import (
    LOST,
    MARKERS,
    REFUSED,
    RESERVED,
    Loss,
    RowCodec,
    Rows,
    SeenMissing,
    Stored,
    anew_from,
    loss_of,
    marker_key,
    marker_of,
    missing_key,
    missing_of,
    refusal_key,
    refusal_of,
    spelled,
)
from streams.state.refusal import Refusal, TooMuchAtOnce, Untaken, blamed_on_events
from streams.state.store import Store

log = logging.getLogger(__name__)
State = TypeVar("State", bound=msgspec.Struct)

ANY_NUMBER = 1 << 20
LOOK = 50_000
"""So many rows are looked at, at most, to know whose cannot be read."""
READ_ROWS, READ_BYTES = 32, 4 << 20
"""So many rows are read in one go, and so many bytes of them for one piece. A row fits a record batch."""
LOOK_BELOW = 1_000
"""Offsets below a marker."""


class Shard(Generic[State]):
    """Holds what the changelog holds. Nothing gets in here before the broker has acknowledged it."""

    def __init__(self, projection: Projection[State], changelog: str, partition: int, store: Store) -> None:
        self.projection, self.changelog, self.partition, self.store = projection, changelog, partition, store
        self._codec = RowCodec(projection.state)
        self.fitting = ANY_NUMBER
        """Events whose rows last fitted one record batch."""
        self._next: dict[tuple[str, int], int] = {}
        self.circuit = ReleaseCircuit(changelog, partition)
        self._looked = False
        self.live = False
        """Restored, and not claimed anew since: only then may it be folded into."""

    @contextmanager
    def folding_as(self, watched: Projection[State]) -> Iterator[None]:
        """By the same projection, watched by whoever needs to know what follows from which event."""
        projection, self.projection = self.projection, watched
        try:
            yield
        finally:
            self.projection = projection

    def hold(self) -> None:
        """For whoever was at work on it while the group gave its partitions out anew."""
        if not self.live:
            raise OwnershipLost(self.changelog, self.partition)

    def next(self, topic: str) -> int | None:
        """The first offset of a source that is not in the rows; None where nothing of it was folded yet."""
        return self._next.get((topic, self.partition))

    def stands_on(self, topic: str, extent: Extent) -> bool:
        """Whether the source still holds what was folded of it: if it once did not reach so far, no growth says so."""
        next_ = self.next(topic)
        return next_ is None or (extent.reaches(next_) and self.missing(topic) is None)

    def missing(self, topic: str) -> SeenMissing | None:
        """How the source was when it did not reach what was folded of it, if no operator has said since what to do."""
        found = self._missing(topic)
        return None if found is None or found.answered or self.next(topic) is None else found

    def spent(self, topic: str) -> set[tuple[int, int]]:
        """Words of an operator that answer nothing any more: each offset, and which loss there."""
        found = self._missing(topic)
        own = {(loss.folded, loss.nth) for loss in self._losses(topic)}
        return own | set(found.spent if found is not None else ())

    def anew_from(self, topic: str) -> int | None:
        return anew_from(self._losses(topic), self.next(topic) or 0)

    def _missing(self, topic: str) -> SeenMissing | None:
        key = missing_key(topic, self.partition)
        return missing_of(key, *self.store.get([key]))

    def _losses(self, topic: str) -> list[Loss]:
        found = (loss_of(key, value) for key, value in self.store.scan(LOST))
        return [loss for loss in found if loss is not None and (loss.topic, loss.partition) == (topic, self.partition)]

    def folded_from(self, sources: Collection[str]) -> None:
        """Rows of other topics than these are no ground to fold these on: whoever renamed one shall say so."""
        if strange := sorted({topic for topic, _ in self._next} - set(sources)):
            raise SourcesRenamed(self.changelog, self.partition, strange, sorted(sources))

    def begun(self, topic: str) -> bool:
        """A marker says so, also after a restart."""
        return self.store.get([marker_key(topic, self.partition)]) != [None]

    def begin(self, topic: str, first: int) -> int:
        """Where this source goes on: at its marker, and at the log's first offset where it was never folded."""
        place = topic, self.partition
        if place not in self._next:
            self._next[place] = first
            if first > 0:
                log.warning(
                    "%s begins on %s/%d at %d: what stood below is deleted, and not in its rows",
                    *(self.projection.name, *place, first),
                    extra=NAMED,
                )
        return self._next[place]

    def load(self, keys: Sequence[str]) -> Mapping[str, State]:
        with blamed_on_events("bad_key"):
            encoded = [key.encode() for key in keys]
        found = self._got(encoded)
        decode = self._codec.decode
        try:
            with blamed_on_events("bad_row"):
                return {key: decode(value).row for key, value in zip(keys, found, strict=True) if value is not None}
        except Untaken:
            self._look_around()
            raise

    def _got(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """A small event can be about a row as large as any: so many of them are not even read at once."""
        found, size = list[bytes | None](), 0
        for first in range(0, len(keys), READ_ROWS):
            some = self.store.get(keys[first : first + READ_ROWS])
            found += some
            size += sum(map(len, filter(None, some)))
            if size > READ_BYTES and len(keys) > 1:
                raise TooMuchAtOnce
        return found

    def _look_around(self) -> None:
        """A row cannot be read. Where it is so with several companies' rows, the release does not fit them.

        Once is enough: what is written from now on is this release's own.
        """
        if self._looked:
            return
        self._looked = True
        unreadable: set[bytes] = set()
        rows = ((key, value) for key, value in self.store.scan() if not key.startswith(RESERVED))
        for key, value in islice(rows, LOOK):
            company = key.split(b"/")[0]
            if company in unreadable or self._readable(value):
                continue
            unreadable.add(company)
            if len(unreadable) >= COMPANIES:
                raise RowsUnreadable(self.changelog, self.partition, self.projection.state.__name__, len(unreadable))

    def _readable(self, value: bytes) -> bool:
        try:
            self._codec.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True

    def stored(self, key: str) -> Stored[State] | None:
        """A row with where it comes from. May be asked from another thread."""
        (value,) = self.store.get([key.encode()])
        return None if value is None else self._codec.decode(value)

    def encode(self, folded: Folded[State], topic: str) -> Rows:
        encode, partition = self._codec.encode, self.partition
        with blamed_on_events("bad_row"):
            return [
                (key.encode(), encode(state, topic, partition, offset)) for key, (state, offset) in folded.rows.items()
            ]

    def apply(self, rows: Rows, position: int | None, topic: str, next_: int) -> None:
        """What the broker has acknowledged."""
        self.hold()
        self.store.write(rows, position)
        self._next[topic, self.partition] = next_

    def restore(self, records: Iterable[tuple[bytes, bytes | None]], position: int) -> None:
        """A stretch of the changelog, as it was read."""
        self.store.write(records, position)

    def needs(self) -> int:
        """The first offset of the changelog that our copy lacks."""
        kept = self.store.position()
        return 0 if kept is None else kept + 1

    def restored(self) -> None:
        """The changelog has been read to its end."""
        self.store.filled()
        markers = (marker_of(key, value) for key, value in self.store.scan(MARKERS))
        self._next = {(marker.topic, marker.partition): marker.next for marker in markers if marker is not None}
        self.circuit = ReleaseCircuit(self.changelog, self.partition, self._just_refused())
        self.live = True

    def _just_refused(self) -> Iterator[Refusal]:
        """Right below the markers, with no gap: nothing was taken since. No company makes this long."""
        for (topic, partition), next_ in self._next.items():
            for offset in range(next_ - 1, next_ - 1 - LOOK_BELOW, -1):
                key = refusal_key(topic, partition, offset)
                refused = refusal_of(key, *self.store.get([key]))
                if refused is None:
                    break
                yield refused

    def refused(self) -> Iterator[Refusal]:
        """The events that this version of the projection did not take. There may be millions."""
        found = (refusal_of(key, value) for key, value in self.store.scan(REFUSED))
        return (each for each in found if each is not None)

    def rows(self, prefix: str = "") -> Iterable[tuple[str, State]]:
        for key, value in self.store.scan(prefix.encode()):
            if not key.startswith(RESERVED):
                yield spelled(key), self._codec.decode(value).row
