"""A worker's fold: the shards that it holds, and the step that takes a fetched batch into all of them."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.errors import NotContiguous
from streams.fold.batch import Batch, Decoded, decode_from
from streams.fold.catch_up import catch_up
from streams.fold.commit import Ports, advance
from streams.fold.dead_letter import publish_letters
from streams.fold.old_ground import LetterReading, OldGround
from streams.fold.shard import Shard
from streams.log.port import EventLog, TopicPartition
from streams.state.changelog import topic_of
from streams.state.store import Store


class Folding:
    """Knows no Kafka and no Faust: a worker, the memory log and a test drive it alike. Topics are wire names."""

    def __init__(self, projections: Sequence[Projection[Any]], names: TopicNames, ports: Ports) -> None:
        self.projections, self._ports = tuple(projections), ports
        self._names = names
        self.events = 0
        """Folded so far, each into all its projections."""
        self._shards: dict[tuple[str, int], Shard[Any]] = {}
        self._under_way: dict[tuple[str, int, int], asyncio.Event] = {}
        """Topic, partition and end of each batch that a step is at work on."""
        self._turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._grounds: dict[TopicPartition, OldGround] = {}
        """Of sources that are not folded beyond what they held when they were taken over."""
        self._by_source: dict[str, list[Projection[Any]]] = {}
        for projection in projections:
            for topic in projection.topics:
                self._by_source.setdefault(names.wire(topic), []).append(projection)

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(self._by_source)

    def sources_of(self, projection: Projection[Any]) -> list[str]:
        return [topic for topic, fed in self._by_source.items() if projection in fed]

    def changelog(self, projection: Projection[Any]) -> str:
        return topic_of(projection, self._names.prefix)

    def open(self, projection: Projection[Any], partition: int, store: Store) -> Shard[Any]:
        changelog = self.changelog(projection)
        shard = self._shards[changelog, partition] = Shard(projection, changelog, partition, store)
        return shard

    def claim(self, changelog: str, partition: int) -> None:
        """Another shard on the same store: who still folds the old one cannot commit, whatever it waits for."""
        old = self._shards[changelog, partition]
        old.live = False
        self.open(old.projection, partition, old.store)

    def close(self, changelog: str, partition: int) -> None:
        shard = self._shards.pop((changelog, partition), None)
        if shard is not None:
            shard.live = False
            shard.store.close()

    def shard(self, changelog: str, partition: int) -> Shard[Any] | None:
        return self._shards.get((changelog, partition))

    def shards(self) -> Iterable[Shard[Any]]:
        return self._shards.values()

    def feeding(self, topic: str, partition: int) -> list[Shard[Any]]:
        """The shards in our hands that a source partition feeds. None before all of them are restored."""
        keys = [(self.changelog(projection), partition) for projection in self._by_source.get(topic, ())]
        held = [self._shards[key] for key in keys if key in self._shards]
        return held if all(shard.live for shard in held) else []

    def begin(self, topic: str, partition: int, first: int) -> int | None:
        """Where to read a source from: the lowest of its markers. None where nothing of ours needs it.

        `first` is the log's first offset: a projection that has never seen the source begins there.
        """
        starts = [shard.begin(topic, first) for shard in self.feeding(topic, partition)]
        return min(starts, default=None)

    def folded(self, topic: str, partition: int) -> int | None:
        """The lowest marker of a source: only so far may the group's commit go."""
        starts = [shard.next(topic) for shard in self.feeding(topic, partition)]
        return min((start for start in starts if start is not None), default=None)

    async def catch_up(self, shards: Collection[Shard[Any]], event_log: EventLog, group: str) -> None:
        """Projections with several sources, and those that act, are brought to the present before the sources flow."""
        for shard in shards:
            shard.folded_from(self.sources_of(shard.projection))
        await self._look_at_ground(shards, event_log)
        for shard in shards:
            sources = self.sources_of(shard.projection)
            if len(sources) > 1 or shard.projection.react is not None:
                committed = {topic: await event_log.committed(group, topic) for topic in sources}
                sent = {topic: offsets.get(shard.partition, 0) for topic, offsets in committed.items()}
                async with self._turns[shard.partition]:
                    await catch_up(shard, sources, event_log, sent, self._ports, self._names, self._told)

    async def _look_at_ground(self, shards: Collection[Shard[Any]], event_log: EventLog) -> None:
        """What their sources hold by now, somebody may have folded before us."""
        places = {(topic, shard.partition) for shard in shards for topic in self.sources_of(shard.projection)}
        ends = {topic: await event_log.ends(topic) for topic in sorted({topic for topic, _ in places})}
        reading = LetterReading(event_log, self._names, places)
        for topic, partition in places:
            held = (self._shards.get((self.changelog(each), partition)) for each in self._by_source[topic])
            anew = any(shard is not None and shard.live and shard.next(topic) is None for shard in held)
            self._grounds[topic, partition] = OldGround(ends[topic][partition], anew, reading)

    async def step(self, batch: Batch) -> None:
        """Skip what is folded, decode once, dead-letter what is no event, fold and commit into every projection.

        Two may be under way: while the log acknowledges one batch, the next is decoded. They commit in its order.
        """
        lowest = self.folded(batch.topic, batch.partition)
        if lowest is None or batch.next <= lowest:
            return
        before = self._under_way.get((batch.topic, batch.partition, batch.start))
        me = batch.topic, batch.partition, batch.next
        mine = self._under_way[me] = asyncio.Event()
        try:
            await self._ports.learn(record.value for record in batch.records)
            decoded = decode_from(batch, lowest, self._names.events_on(batch.topic))
            self._ports.failpoint.reached("decoded")
            if before is not None:
                await before.wait()
            # Sources that feed the same rows take turns as well.
            async with self._turns[batch.partition]:
                await self._commit(decoded)
        finally:
            mine.set()
            if self._under_way.get(me) is mine:
                del self._under_way[me]

    async def _commit(self, decoded: Decoded) -> None:
        shards = self.feeding(decoded.topic, decoded.partition)
        lowest = self.folded(decoded.topic, decoded.partition)
        if lowest is None or decoded.next <= lowest:
            return
        if decoded.start > lowest:
            raise NotContiguous(decoded.topic, decoded.partition, lowest, decoded.start)
        if decoded.refused:
            decoded = decoded._replace(refused=[each for each in decoded.refused if each.record.offset >= lowest])
        if (ground := self._grounds.get((decoded.topic, decoded.partition))) and ground.end <= lowest:
            del self._grounds[decoded.topic, decoded.partition]
        decoded = await self._told(decoded)
        await asyncio.gather(*(advance(shard, decoded, self._ports) for shard in shards))
        self.events += len(decoded.events)

    async def _told(self, decoded: Decoded) -> Decoded:
        """Letters are in the log before a marker passes what they are about. What has one already is no event."""
        ground = self._grounds.get((decoded.topic, decoded.partition))
        if ground is not None:
            decoded = await ground.judged(decoded)
        if decoded.refused:
            await publish_letters(decoded.refused, self._ports.publish)
            if ground is not None:
                ground.told(decoded)
        return decoded
