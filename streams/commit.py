"""What makes a fold exact: the order in which its parts become durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

from schemas.envelope import Event, Origin
from streams.changelog import Rows
from streams.errors import RowTooLarge
from streams.failpoint import FailPoint
from streams.fold import Decoded, Found, fold
from streams.log import Learn, nothing_to_learn
from streams.shard import Shard

# Under Kafka's default of 1 MiB for a record batch, with room for its header.
BATCH_BYTES = 1_000_000
RECORD_OVERHEAD = 24

Publish = Callable[[Sequence[Event]], Awaitable[None]]
"""Returns when all are acknowledged by the log."""
Append = Callable[[str, int, Rows], Awaitable[int | None]]
"""One record batch to a changelog partition, whole or not at all. Returns the offset of its last record."""


class Ports(NamedTuple):
    """What a commit needs of the world."""

    publish: Publish
    append: Append
    failpoint: FailPoint
    learn: Learn = nothing_to_learn


class Piece(NamedTuple):
    """Rows that fit one record batch, and the events that they follow from."""

    rows: Rows
    outputs: Sequence[Event]
    next: int


async def commit(shard: Shard[Any], piece: Piece, source: str, ports: Ports) -> None:
    """The order of a commit. It is written here and nowhere else."""
    # 1. What follows from the events is acknowledged by the log. After a crash it may come again, with the same ids.
    if piece.outputs:
        await ports.publish(piece.outputs)
    ports.failpoint.reached("published")
    # 2. One record batch holds the rows and the marker: the broker appends both or neither. No await stands between
    #    the look at the shard and the choice of the producer: a batch is sent under the claim that it was folded under.
    shard.hold()
    position = await ports.append(shard.changelog, shard.partition, piece.rows)
    ports.failpoint.reached("appended")
    # 3. One write moves the same rows, the marker and the changelog's position in the local store.
    shard.apply(piece.rows, position, source, piece.next)
    ports.failpoint.reached("stored")
    # 4. By returning: whoever delivered the batch may commit the source's offset. It is a hint; the marker decides.


async def advance(shard: Shard[Any], decoded: Decoded, ports: Ports) -> None:
    """Folds what this shard has not seen of a batch, and commits it piece by piece."""
    start = shard.next(decoded.topic)
    assert start is not None, f"{shard.changelog}/{shard.partition} was never begun on {decoded.topic}"
    if decoded.next <= start:
        return
    events = decoded.events
    if start > decoded.start:
        events = [found for found in events if found[0].offset >= start]
    for piece in _pieces(shard, decoded, events):
        await commit(shard, piece, decoded.topic, ports)


def _pieces(shard: Shard[Any], decoded: Decoded, events: Sequence[Found]) -> Iterator[Piece]:
    """The fold is pure, so a stretch of events whose rows are too many is simply folded again in halves.

    How many events fit is remembered: where every event has a row of its own, most batches are too large at first.
    """
    done, size = 0, min(len(events), shard.fitting)
    while True:
        stretch = events[done : done + size]
        last = done + size >= len(events)
        next_ = decoded.next if last else stretch[-1][0].offset + 1
        folded = fold(shard.projection, stretch, shard.load)
        rows = shard.encode(folded, decoded.topic, next_)
        bytes_ = sum(len(key) + len(value) + RECORD_OVERHEAD for key, value in rows)
        if bytes_ <= BATCH_BYTES:
            if bytes_ < BATCH_BYTES // 3:
                shard.fitting = max(shard.fitting, 2 * size)
            yield Piece(rows, folded.outputs, next_)
            if last:
                return
            done += size
        elif size > 1:
            size = shard.fitting = size // 2
        else:
            origin = Origin(decoded.topic, decoded.partition, stretch[0][0].offset)
            raise RowTooLarge(shard.projection.name, origin, bytes_, BATCH_BYTES)
