"""A worker's fold: the shards that it holds, and the step that takes a fetched batch into all of them."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from projections.projection import Projection
from schemas.errors import Stop
from schemas.topics import TopicNames
from streams.errors import NAMED, NotContiguous, SourceLost, UnknownTopic
from streams.fold.acceptance import Acceptance, Accepted, unspent
from streams.fold.batch import Batch, Decoded, decode_from
from streams.fold.catch_up import catch_up
from streams.fold.commit import Ports, advance, commit
from streams.fold.dead_letter import publish_letters
from streams.fold.old_ground import LetterReading, OldGround
from streams.fold.pieces import Piece
from streams.fold.shard import Shard
from streams.log.port import EventLog, Extent, TopicPartition, ends_of, extents
from streams.state.changelog import (
    Loss,
    Marker,
    Rows,
    SeenMissing,
    loss_record,
    marker_record,
    missing_record,
    refusal_key,
    topic_of,
)
from streams.state.store import Store

log = logging.getLogger(__name__)
REMOVED = 1_000
"""So many keys, of 300 bytes at most, fit one record batch."""
NOTHING = Extent(0, 0)
Ask = Callable[[], Awaitable[Extent]]
"""What a source partition holds now."""


class Folding:
    """Knows no Kafka and no Faust: a worker, the memory log and a test drive it alike. Topics are wire names."""

    def __init__(
        self, projections: Sequence[Projection[Any]], names: TopicNames, ports: Ports, accepted: Accepted | None = None
    ) -> None:
        self.projections, self._ports = tuple(projections), ports
        self._names = names
        self.lost: Mapping[TopicPartition, Stop] = {}
        """Source partitions that stand still until an operator decides. Replaced, not changed: others read it."""
        self.events = 0
        """Folded so far, each into all its projections."""
        self.beats = 0
        """Signs of progress while no marker moves: much may have been told of what stands behind them."""
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
        self._ours = {self.changelog(each): each for each in projections}
        self._acceptance = Acceptance(accepted or {}, self._by_source)

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(self._by_source)

    def sources_of(self, projection: Projection[Any]) -> list[str]:
        """Also of one that is watched while its shard catches up."""
        ours = self._ours.get(self.changelog(projection))
        return [topic for topic, fed in self._by_source.items() if ours in fed]

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
        self.open(self._ours[changelog], partition, old.store)

    def close(self, changelog: str, partition: int) -> None:
        shard = self._shards.pop((changelog, partition), None)
        if shard is not None:
            shard.live = False
            shard.store.close()
            for topic in self.sources_of(shard.projection):
                self._leave_ground(topic, partition)

    def shard(self, changelog: str, partition: int) -> Shard[Any] | None:
        return self._shards.get((changelog, partition))

    def shards(self) -> Iterable[Shard[Any]]:
        return self._shards.values()

    def feeding(self, topic: str, partition: int) -> list[Shard[Any]]:
        """The shards in our hands that a source partition feeds. None before all of them are restored."""
        keys = [(self.changelog(projection), partition) for projection in self._by_source.get(topic, ())]
        held = [self._shards[key] for key in keys if key in self._shards]
        return held if all(shard.live for shard in held) else []

    def begin(self, topic: str, partition: int, extent: Extent, read_to: int | None = None) -> int | None:
        """Where to read a source from: the lowest of its markers. None where nothing of ours needs it, or may have it.

        A projection that has never seen the source begins at its first offset. Who has read further than the markers
        (batches are still in hand) says how far.
        """
        shards = self.feeding(topic, partition)
        known = {shard.next(topic) if read_to is None else read_to for shard in shards}
        lost = {at for at in known if at is not None and not extent.reaches(at)}
        was = {shard.next(topic): missing for shard in shards if (missing := shard.missing(topic)) is not None}
        if lost or was:
            markers = {at for shard in shards if (at := shard.next(topic)) is not None}
            lost |= {at for at in was if at is not None}
            once = min(((each.first, each.end) for each in was.values()), default=extent)
            place = f"{topic}/{partition}"
            words = unspent(place, lost | markers, [each for shard in shards for each in shard.spent(topic)])
            unfit = self._acceptance.about(place)
            self.stand(topic, partition, SourceLost(place, words, min(lost), extent, once, unfit))
            return None
        self.stand(topic, partition, None)
        return min((shard.begin(topic, extent.first) for shard in shards), default=None)

    def stand(self, topic: str, partition: int, why: Stop | None) -> None:
        """Still, until somebody decides; or no longer."""
        others = {place: other for place, other in self.lost.items() if place != (topic, partition)}
        if why is not None and str(why) != str(self.lost.get((topic, partition))):
            log.error("%s", why, extra=NAMED)
        self.lost = others if why is None else {**others, (topic, partition): why}

    async def look(self, topic: str, partition: int, extent: Extent, ask: Ask, read_to: int | None = None) -> Extent:
        """That a source does not reach what was folded is written down, and what an operator has said of it.

        By the next look it may have grown beyond that, and be another all the same. Returns what it was judged by.
        """
        async with self._turns[partition]:
            return await self._look(self.feeding(topic, partition), topic, extent, ask, read_to)

    async def _look(
        self, shards: Collection[Shard[Any]], topic: str, extent: Extent, ask: Ask, read_to: int | None = None
    ) -> Extent:
        """In its turn: nothing is folded meanwhile. What was asked before may be older than what was folded since."""
        if not all(shard.next(topic) is None or extent.reaches(shard.next(topic) or 0) for shard in shards):
            extent = await ask()
        for shard in shards:
            await self._accept(shard, topic, extent)
            await self._name(shard, topic, extent, read_to)
        return extent

    async def _name(self, shard: Shard[Any], topic: str, extent: Extent, read_to: int | None = None) -> None:
        folded = shard.next(topic)
        if folded is None or shard.missing(topic) is not None:
            return
        if not (extent.reaches(folded) and extent.reaches(folded if read_to is None else read_to)):
            was = SeenMissing(topic, shard.partition, *extent, spent=tuple(sorted(shard.spent(topic))))
            rows: Rows = [missing_record(was)]
            if not shard.begun(topic):  # what is missing is known by it
                rows.append(marker_record(Marker(topic, shard.partition, folded)))
            await commit(shard, Piece(rows, (), folded), topic, self._ports)

    async def _accept(self, shard: Shard[Any], topic: str, extent: Extent) -> None:
        """Whatever the source holds by now: who set it knows. Once, however long it stays set."""
        folded, place = shard.next(topic), f"{topic}/{shard.partition}"
        if folded is None or (said := self._acceptance.of(place, folded)) is None or not extent.reaches(said.next):
            return
        spent, there = shard.spent(topic), {(each.folded, each.nth) for each in self._acceptance.all(place)}
        if any(at == folded and said.nth <= nth for at, nth in spent):
            self._acceptance.obeyed(place, said)
            return
        loss = Loss(topic, shard.partition, folded, next_ := said.next, said.nth)
        log.warning("%s: %s", shard.projection.name, loss, extra=NAMED)
        answered = SeenMissing(topic, shard.partition, *extent, answered=True, spent=tuple(sorted(spent | there)))
        # Refusals of records that are gone would be taken for those of the records that stand there now.
        refused = [each.offset for each in shard.refused() if each.topic == topic and next_ <= each.offset < folded]
        gone = [refusal_key(topic, shard.partition, offset) for offset in refused]
        for some in (gone[first : first + REMOVED] for first in range(0, len(gone), REMOVED)):
            await commit(shard, Piece([(key, None) for key in some], (), folded), topic, self._ports)
        rows: Rows = [loss_record(loss), missing_record(answered), marker_record(Marker(topic, shard.partition, next_))]
        await commit(shard, Piece(rows, (), next_), topic, self._ports)

    def folded(self, topic: str, partition: int) -> int | None:
        """Only so far may the group's commit go: whoever takes over rows that act sends nothing of what is below.

        None while rows that the source feeds are not in our hands: a leader of another release may know them not.
        """
        fed = (self._shards.get((self.changelog(each), partition)) for each in self._by_source.get(topic, ()))
        return self._lowest(topic, partition) if all(fed) else None

    def _lowest(self, topic: str, partition: int) -> int | None:
        """The lowest marker of a source, of the rows that are here."""
        starts = [shard.next(topic) for shard in self.feeding(topic, partition)]
        return min((start for start in starts if start is not None), default=None)

    async def catch_up(self, shards: Collection[Shard[Any]], event_log: EventLog, group: str) -> None:
        """Projections with several sources, and those that act, are brought to the present before the sources flow."""
        for shard in shards:
            shard.folded_from(self.sources_of(shard.projection))
        await self._look_at_losses(shards, event_log)
        await self._look_at_ground(shards, event_log)
        for shard in shards:
            sources = self.sources_of(shard.projection)
            if len(sources) > 1 or shard.projection.react is not None:
                sent, held = dict[str, int](), dict[str, Extent]()
                async with self._turns[shard.partition]:
                    for topic in sources:
                        with suppress(UnknownTopic):  # deleted under the group: whoever begins its sources says so
                            committed = await event_log.committed(group, topic)
                            if (extent := (await extents(event_log, topic)).get(shard.partition)) is not None:
                                held[topic], sent[topic] = extent, committed.get(shard.partition, 0)
                    await catch_up(shard, held, event_log, sent, self._ports, self._names, self._told, self._beat)
        for shard in shards:  # only now: what one has told on the way is old ground for those that read it later
            for topic in self.sources_of(shard.projection):
                self._leave_ground(topic, shard.partition)

    async def _look_at_losses(self, shards: Collection[Shard[Any]], event_log: EventLog) -> None:
        """Before anything of a source is folded on. One that is deleted is another when it is there again."""
        held = defaultdict[str, Mapping[int, Extent]](dict)
        for topic in sorted({topic for shard in shards for topic in self.sources_of(shard.projection)}):
            with suppress(UnknownTopic):
                held[topic] = await extents(event_log, topic)
        for shard in shards:
            for topic in self.sources_of(shard.projection):
                extent = held[topic].get(shard.partition)
                async with self._turns[shard.partition]:
                    if extent is None:
                        await self._name(shard, topic, NOTHING)
                    else:
                        await self._look([shard], topic, extent, asking(event_log, topic, shard.partition))

    async def _look_at_ground(self, shards: Collection[Shard[Any]], event_log: EventLog) -> None:
        """What their sources hold by now, somebody may have folded before us."""
        places = {(topic, shard.partition) for shard in shards for topic in self.sources_of(shard.projection)}
        ends, _ = await ends_of(event_log, (topic for topic, _ in places))
        folded = {place: self._folded(*place) for place in places if place in ends}
        first = {place: min((next_ or 0 for next_ in nexts), default=0) for place, nexts in folded.items()}
        reading = LetterReading(event_log, self._names, first, self._beat)
        for (topic, partition), nexts in folded.items():
            self._grounds[topic, partition] = OldGround(ends[topic, partition], None in nexts, reading)

    def _leave_ground(self, topic: str, partition: int) -> None:
        """What was read for it is shared: a partition that stays idle would keep it all."""
        ground = self._grounds.get((topic, partition))
        if ground and all((next_ or 0) >= ground.end for next_ in self._folded(topic, partition)):
            del self._grounds[topic, partition]

    def _folded(self, topic: str, partition: int) -> set[int | None]:
        """The markers of all that is ours; None is a projection that begins on it."""
        held = (self._shards.get((self.changelog(each), partition)) for each in self._by_source[topic])
        return {shard.next(topic) for shard in held if shard is not None and shard.live}

    def _beat(self) -> None:
        self.beats += 1

    async def step(self, batch: Batch) -> None:
        """Skip what is folded, decode once, dead-letter what is no event, fold and commit into every projection.

        Two may be under way: while the log acknowledges one batch, the next is decoded. They commit in its order.
        """
        lowest = self._lowest(batch.topic, batch.partition)
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
        lowest = self._lowest(decoded.topic, decoded.partition)
        if lowest is None or decoded.next <= lowest:
            return
        if decoded.start > lowest:
            raise NotContiguous(decoded.topic, decoded.partition, lowest, decoded.start)
        if decoded.refused:
            decoded = decoded._replace(refused=[each for each in decoded.refused if each.record.offset >= lowest])
        decoded = await self._told(decoded)
        await asyncio.gather(*(advance(shard, decoded, self._ports) for shard in shards))
        self._leave_ground(decoded.topic, decoded.partition)
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


def asking(event_log: EventLog, topic: str, partition: int) -> Ask:
    async def ask() -> Extent:
        with suppress(UnknownTopic):
            return (await extents(event_log, topic)).get(partition, NOTHING)
        return NOTHING

    return ask
