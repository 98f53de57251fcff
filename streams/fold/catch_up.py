"""Several sources of one projection, read in the order in which their records were written.

While a worker lives, an effect is published after its cause was folded, so causes come first by themselves. After a
restart, and above all when a changelog is gone and all is folded anew, a reply could be read before the question.
So a worker that takes such a partition over first reads all of its sources together, up to their ends of that moment.
A projection that acts is read so as well, be it of one source: what follows from old events was sent at their time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import groupby
from typing import Any, NamedTuple

from schemas.topics import TopicNames
from streams.fold.batch import Batch, Decoded, decode_from
from streams.fold.commit import Ports, advance
from streams.fold.dead_letter import size_with_headers
from streams.fold.owed import NOTHING_BEFORE, Owed, Sent, before
from streams.fold.shard import Shard
from streams.log.port import HEADER_BYTES, EventLog, Extent, Record, records_in

# What is held at once of all sources together, and folded in one go where it comes from one source.
STRETCH, STRETCH_BYTES = 2_000, 16 << 20

Told = Callable[[Decoded], Awaitable[Decoded]]
"""Writes the letters of a batch, and gives back what of it is to be folded."""


class Way(NamedTuple):
    """How a shard gets over old ground."""

    names: TopicNames
    told: Told
    sent: Mapping[str, int]
    """Of each source, up to where it was folded once and what follows was sent."""
    below: Ports
    ports: Ports


async def catch_up(
    shard: Shard[Any],
    sources: Mapping[str, Extent],
    event_log: EventLog,
    committed: Mapping[str, int],
    ports: Ports,
    names: TopicNames,
    told: Told,
    beat: Callable[[], None],
) -> None:
    """What the group has committed, or an earlier version has folded, is not sent again, unless it was refused there.

    Of the rest is sent what the log does not hold: a group may be new where others have folded. A source that does not
    hold what was folded is left to whoever begins it; and what was committed or folded beyond a source's end, or before
    an operator let it go on with other records, says nothing of those that stand there now.
    """
    found = {topic: extent for topic, extent in sources.items() if shard.stands_on(topic, extent)}
    ends = {topic: extent.end for topic, extent in found.items()}
    anew = any(shard.next(topic) is None for topic in found)
    starts = {topic: shard.begin(topic, extent.first) for topic, extent in found.items()}
    if all(starts[topic] >= ends[topic] for topic in found):
        return
    committed = _within(ends, committed)
    again = any(starts[topic] < committed[topic] for topic in found)
    known = again or anew or not any(committed.values())
    left = await before(event_log, shard, names, starts, beat) if known else NOTHING_BEFORE
    owed = Owed.over(shard, starts, left)
    sent = Sent(event_log, names, beat)
    absent = ports._replace(publish=sent.publishing(ports.publish))
    below = absent._replace(publish=owed.publishing(absent.publish, names))
    folded = _within(ends, left.folded)
    so_far = {topic: max(committed[topic], folded[topic]) for topic in found}
    for topic in found:
        bounds = (shard.anew_from(topic), left.anew_from.get(topic))
        so_far[topic] = min([so_far[topic], *(first for first in bounds if first is not None)])
    way = Way(names, told, so_far, below, absent)
    readers = [records_in(event_log, topic, shard.partition, starts[topic], ends[topic], beat) for topic in found]
    with shard.folding_as(owed.watched()):
        async for stretch in _stretches(_in_order(readers)):
            if not anew:
                sent.look_from(min(record.timestamp for record in stretch))
            await _fold(shard, stretch, way)
            owed.sent()
    for topic, end in ends.items():
        await _advance(shard, Batch(topic, shard.partition, _next(shard, topic), end, ()), way, ports)


def _within(ends: Mapping[str, int], offsets: Mapping[str, int]) -> Mapping[str, int]:
    return {topic: offset if (offset := offsets.get(topic, 0)) <= end else 0 for topic, end in ends.items()}


def _next(shard: Shard[Any], topic: str) -> int:
    next_ = shard.next(topic)
    assert next_ is not None, f"{topic} was begun"
    return next_


async def _stretches(records: AsyncIterator[Record]) -> AsyncIterator[list[Record]]:
    """One more record than fits, at most: a broker's limit is about what is packed."""
    stretch, weight = list[Record](), 0
    async for record in records:
        stretch.append(record)
        weight += size_with_headers(record) + HEADER_BYTES * len(record.headers)
        if len(stretch) >= STRETCH or weight >= STRETCH_BYTES:
            yield stretch
            stretch, weight = [], 0
    if stretch:
        yield stretch


async def _in_order(readers: Sequence[AsyncIterator[Record]]) -> AsyncIterator[Record]:
    """By timestamp; in one topic always by offset, whatever its timestamps say."""
    heads = [(record.timestamp, n, record) for n, reader in enumerate(readers) if (record := await anext(reader, None))]
    heapify(heads)
    while heads:
        time, n, record = heads[0]
        yield record
        following = await anext(readers[n], None)
        if following is None:
            heappop(heads)
        else:
            heapreplace(heads, (max(time, following.timestamp), n, following))


async def _fold(shard: Shard[Any], stretch: Sequence[Record], way: Way) -> None:
    """Runs of one source, cut where it was once folded up to."""

    def run_of(record: Record) -> tuple[str, bool]:
        return record.topic, record.offset < way.sent[record.topic]

    for (topic, old), run in groupby(stretch, run_of):
        records = list(run)
        batch = Batch(topic, shard.partition, _next(shard, topic), records[-1].offset + 1, records)
        await _advance(shard, batch, way, way.below if old else way.ports)


async def _advance(shard: Shard[Any], batch: Batch, way: Way, ports: Ports) -> None:
    await ports.learn(record.value for record in batch.records)
    decoded = decode_from(batch, batch.start, way.names.events_on(batch.topic))
    await advance(shard, await way.told(decoded), ports)
