"""Several sources of one projection, read in the order in which their records were written.

While a worker lives, an effect is published after its cause was folded, so causes come first by themselves. After a
restart, and above all when a changelog is gone and all is folded anew, a reply could be read before the question.
So a worker that takes such a partition over first reads all of its sources together, up to their ends of that moment.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import groupby
from typing import Any

from schemas.topics import TopicNames
from streams.fold.batch import Batch, decode_from
from streams.fold.commit import Ports, advance
from streams.fold.dead_letter import publish_letters
from streams.fold.owed import Owed, refused_before
from streams.fold.shard import Shard
from streams.log.port import EventLog, Extent, Record, records_in

# Records that are held at once of all sources together, and folded in one go where they come from one source.
STRETCH = 2_000


async def catch_up(
    shard: Shard[Any],
    sources: Mapping[str, Extent],
    event_log: EventLog,
    committed: Mapping[str, int],
    ports: Ports,
    names: TopicNames,
) -> None:
    """What the group has committed was folded once, and what follows from it was sent, unless it was refused.

    A source that does not hold what was folded is left to whoever begins it. Nor does a commit beyond a source's end
    say anything of the records that stand there now.
    """
    found = {topic: extent for topic, extent in sources.items() if shard.stands_on(topic, extent)}
    ends = {topic: extent.end for topic, extent in found.items()}
    starts = {topic: shard.begin(topic, extent.first) for topic, extent in found.items()}
    committed = {topic: offset for topic, offset in committed.items() if topic in found and offset <= ends[topic]}
    again = any(starts[topic] < committed.get(topic, 0) for topic in found)
    owed = await _owed(shard, starts, event_log, names) if again else Owed(shard.projection, (), ())
    old_ground = Ports(owed.publishing(ports.publish, names), *ports[1:])
    readers = [records_in(event_log, topic, shard.partition, starts[topic], ends[topic]) for topic in found]
    stretch: list[Record] = []
    with shard.folding_as(owed.watched()):
        async for record in _in_order(readers):
            stretch.append(record)
            if len(stretch) >= STRETCH:
                await _fold(shard, stretch, committed, (ports, old_ground), names)
                stretch.clear()
                owed.sent()
        await _fold(shard, stretch, committed, (ports, old_ground), names)
    for topic, end in ends.items():
        await _advance(shard, Batch(topic, shard.partition, _next(shard, topic), end, ()), ports, names)


async def _owed(shard: Shard[Any], starts: Mapping[str, int], event_log: EventLog, names: TopicNames) -> Owed:
    """Where an earlier catch-up was broken off, the rows of what was refused below are not known: the company is."""
    before = await refused_before(event_log, shard.projection, names, shard.partition)
    companies = {each.company for each in before if each.offset < starts.get(each.topic, 0)}
    return Owed(shard.projection, [*before, *shard.refused()], companies)


def _next(shard: Shard[Any], topic: str) -> int:
    next_ = shard.next(topic)
    assert next_ is not None, f"{topic} was begun"
    return next_


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


async def _fold(
    shard: Shard[Any],
    stretch: Sequence[Record],
    committed: Mapping[str, int],
    ports: tuple[Ports, Ports],
    names: TopicNames,
) -> None:
    """Runs of one source, cut where the group's commit stands: from there on by the first of the ports."""

    def run_of(record: Record) -> tuple[str, bool]:
        return record.topic, record.offset < committed.get(record.topic, 0)

    for (topic, old), run in groupby(stretch, run_of):
        records = list(run)
        batch = Batch(topic, shard.partition, _next(shard, topic), records[-1].offset + 1, records)
        await _advance(shard, batch, ports[old], names)


async def _advance(shard: Shard[Any], batch: Batch, ports: Ports, names: TopicNames) -> None:
    decoded = decode_from(batch, batch.start, names.events_on(batch.topic))
    if decoded.refused:
        await publish_letters(decoded.refused, ports.publish)
    await advance(shard, decoded, ports)
