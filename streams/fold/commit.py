"""What makes a fold exact: the order in which its parts become durable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from schemas.envelope import Event
from schemas.errors import Poison
from streams.fold.batch import Decoded, Found
from streams.fold.failpoint import FailPoint
from streams.fold.pieces import BATCH_BYTES, Deadline, Draft, Piece, whole
from streams.fold.shard import Shard
from streams.log.port import Learn, nothing_to_learn
from streams.state.changelog import Rows
from streams.state.refusal import Refusal, RowsTooLarge, TooMuchAtOnce

log = logging.getLogger(__name__)
FEW = 256
"""Of so many events those that are refused are looked for one by one; of more, in halves."""

Publish = Callable[[Sequence[Event]], Awaitable[None]]
"""Returns when all are acknowledged by the log. Raises a `Poison` where one of them can never be written."""
Append = Callable[[str, int, Rows], Awaitable[int | None]]
"""One record batch to a changelog partition, whole or not at all. Returns the offset of its last record."""


def say(refused: Sequence[Refusal]) -> None:
    for each in refused:
        log.warning("%s", each)


class Ports(NamedTuple):
    """What a commit needs of the world."""

    publish: Publish
    append: Append
    failpoint: FailPoint
    learn: Learn = nothing_to_learn
    refused: Callable[[Sequence[Refusal]], None] = say
    """Told of events that a projection did not take, once that is in its changelog."""


async def commit(shard: Shard[Any], piece: Piece, source: str, ports: Ports) -> None:
    """The order of a commit. It is written here and nowhere else."""
    # 1. What follows from the events is acknowledged by the log. After a crash it may come again, with the same ids.
    if piece.outputs:
        await ports.publish(piece.outputs)
    ports.failpoint.reached("published")
    # 2. One record batch holds the rows, the refusals and the marker: the broker appends all or none. No await stands
    #    between the look at the shard and the choice of the producer: a batch is sent under the claim that it was
    #    folded under.
    shard.hold()
    position = await ports.append(shard.changelog, shard.partition, piece.rows)
    ports.failpoint.reached("appended")
    # 3. One write moves the same rows, the marker and the changelog's position in the local store.
    shard.apply(piece.rows, position, source, piece.next)
    ports.failpoint.reached("stored")
    if piece.refused:
        ports.refused(piece.refused)
    # 4. By returning: whoever delivered the batch may commit the source's offset. It is a hint; the marker decides.


async def advance(shard: Shard[Any], decoded: Decoded, ports: Ports) -> None:
    """Folds what this shard has not seen of a batch, and commits it piece by piece.

    The fold is pure, so a stretch of events whose rows are too many, or of which one is refused, is simply folded again
    in halves. How many events fit is remembered: where every event has a row of its own, most batches are too large at
    first.
    """
    start = shard.next(decoded.topic)
    assert start is not None, f"{shard.changelog}/{shard.partition} was never begun on {decoded.topic}"
    if decoded.next <= start:
        return
    events = decoded.events
    if start > decoded.start:
        events = [found for found in events if found[0].offset >= start]
    done, size = 0, min(len(events), shard.fitting)
    while True:
        stretch = events[done : done + size]
        last = done + size >= len(events)
        next_ = decoded.next if last else stretch[-1][0].offset + 1
        if not await _taken(shard, decoded, stretch, next_, ports):
            size //= 2
        elif last:
            return
        else:
            done += size
            size = min(2 * size, shard.fitting)


async def _taken(shard: Shard[Any], decoded: Decoded, events: Sequence[Found], next_: int, ports: Ports) -> bool:
    """False where they are too many: for one record batch, for one turn of the loop, or to be looked through for one
    that is refused."""
    size, deadline = len(events), Deadline()
    try:
        piece = whole(shard, decoded, events, next_, deadline)
        few = piece.size < BATCH_BYTES // 3 and deadline.far()
        await commit(shard, piece, decoded.topic, ports)
        if len(piece.rows) > 1:
            shard.circuit.taken()
        if few:
            shard.fitting = max(shard.fitting, 2 * size)
        return True
    except (RowsTooLarge, TooMuchAtOnce):
        if size > 1:
            shard.fitting = size // 2
            await asyncio.sleep(0)
            return False
    except Poison:
        if size > FEW:
            return False
    await _one_by_one(shard, decoded, events, next_, ports)
    return True


async def _one_by_one(shard: Shard[Any], decoded: Decoded, events: Sequence[Found], next_: int, ports: Ports) -> None:
    """An event that cannot be taken is refused by name; those before and after it go on as if it were not there.

    What follows from them is published together, up to where something cannot be.
    """
    draft, unsendable = Draft(shard, decoded), dict[int, Poison]()
    done, size = 0, len(events)
    while done < len(events):
        trial, first = draft.copy(), events[done][0].offset
        taken = trial.take(events[done : done + size], unsendable)
        if taken == 0:
            await _commit_draft(shard, draft, first, decoded.topic, ports)
            draft = Draft(shard, decoded)
            continue
        try:
            if trial.outputs:
                await ports.publish(trial.outputs)
        except Poison as error:
            if taken == 1:
                unsendable[first] = error
            size = max(1, taken // 2)
            continue
        draft, done, size = trial.copy(), done + taken, 2 * size
    await _commit_draft(shard, draft, next_, decoded.topic, ports)


async def _commit_draft(shard: Shard[Any], draft: Draft, next_: int, source: str, ports: Ports) -> None:
    """Unless so much of it was refused that it is not the events: then nothing of it is passed."""
    shard.circuit.judge(draft.outcomes)
    await commit(shard, draft.piece(next_), source, ports)
