"""What a Faust worker holds, partition by partition: opens, claims, restores and hands back the shards of its fold."""

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from faust.types import TP

from streams.errors import NAMED, ChangelogCut, SourceGrown, SourceUnread, UnknownTopic
from streams.fold.folding import Folding, asking
from streams.fold.shard import Shard
from streams.health.watchman import EX_SOFTWARE
from streams.log.port import EventLog, Extent, TopicPartition, extents
from streams.owner.fence import FencedChangelogs
from streams.owner.refill import Refill
from streams.state.store import Stores

log = logging.getLogger(__name__)
NOWHERE: Mapping[TP, int] = {}
SHOWN = 5
"""Places in one line."""


class ShardOwner:
    """Answers Faust's questions about tables. Topics are wire names; offsets are the changelog's."""

    def __init__(
        self,
        folding: Folding,
        fence: FencedChangelogs,
        stores: Stores,
        event_log: EventLog,
        group: str,
        refill: Refill,
        alone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`alone` is asked once, before the first claim: it raises where another group is to claim what we would."""
        self._folding, self._fence, self._stores = folding, fence, stores
        self._event_log, self._group, self._refill = event_log, group, refill
        self._alone = alone
        self._catching_up: set[asyncio.Future[None]] = set()
        """What works on shards for a recovery that another may take over from."""
        self._claims: dict[TopicPartition, int] = {}
        """Where our own claims stand in the changelogs."""
        self._projections = {folding.changelog(projection): projection for projection in folding.projections}

    async def assigned(self, changelogs: Iterable[TP]) -> None:
        """These partitions, and no others, are ours from now on."""
        await self._leave_off()
        ours: set[TopicPartition] = set(changelogs)
        held: set[TopicPartition] = {(shard.changelog, shard.partition) for shard in self._folding.shards()}
        for gone in held - ours:
            self._folding.close(*gone)
            self._claims.pop(gone, None)
        await self._fence.release(sorted({p for _, p in held} - {p for _, p in ours}))
        for new in ours - held:
            self._open(*new)

    async def claim(self, changelogs: Iterable[TP]) -> None:
        """Shut out earlier owners. What they managed to write is in the changelog before this returns."""
        await self._leave_off()
        if self._alone is not None:
            await self._alone()
            self._alone = None
        ours = set(changelogs)
        for shard in self._folding.shards():
            if TP(shard.changelog, shard.partition) not in ours:
                # From now on a copy of another worker's rows, even if we folded them until now.
                shard.live = False
                self._claims.pop((shard.changelog, shard.partition), None)
        topics: dict[int, list[str]] = defaultdict(list)
        for tp in ours:
            self._folding.claim(*tp)
            self._claims.pop(tp, None)
            topics[tp.partition].append(tp.topic)
        self._claims |= await self._fence.claim(topics)

    def persisted(self, changelog: TP) -> int | None:
        return self._shard(changelog).store.position()

    def restore(
        self, changelog: TP, start: int, records: Iterable[tuple[bytes, bytes | None]], position: int
    ) -> int | None:
        """What an earlier recovery has read and not yet handed on may be another's by now, or be known.

        Returns where the copy goes on if what stands before `start` was never handed on, as where a rebalance came
        between: a copy that took the rest would lack it for ever.
        """
        shard = self._folding.shard(*changelog)
        if shard is None or position < (needed := shard.needs()):
            return None
        if start > needed:
            return needed
        shard.restore(records, position)
        return None

    async def refill(self, changelogs: Iterable[TP]) -> bool:
        """Up to our own claims. False when it was left off: another recovery begins."""
        claims = {self._shard(changelog): self._claims[changelog] for changelog in changelogs}
        reading = asyncio.ensure_future(self._refill(claims))
        self._catching_up.add(reading)
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            reading.add_done_callback(self._catching_up.discard)
        if reading.cancelled():
            return False
        reading.result()
        return True

    def forget(self, changelog: TP) -> None:
        """What is kept locally does not belong to this changelog."""
        log.warning("%s/%s ends before our copy of it: copy discarded, rows are folded again", *changelog)
        self._folding.close(*changelog)
        self._stores.discard(*changelog)
        self._open(*changelog)

    async def restored(self, changelogs: Iterable[TP]) -> None:
        """What was read of the changelogs reaches our claims: nothing of an earlier owner's is missing.

        Faust may say so at the end of a recovery that another has already taken over from. Then it is not yet true.
        """
        shards = [self._shard(changelog) for changelog in changelogs if self._reaches_its_claim(changelog)]
        for shard in shards:
            shard.restored()
        catching_up = asyncio.ensure_future(self._folding.catch_up(shards, self._event_log, self._group))
        self._catching_up.add(catching_up)
        try:
            await catching_up
        finally:
            self._catching_up.discard(catching_up)

    async def begins(self, sources: Collection[TP], read_to: Mapping[TP, int] = NOWHERE) -> Mapping[TP, int]:
        """Where sources are to be read from. Those that nobody here needs are left out, and those that stand still.

        Asked of the log by a client that does not fetch: behind a fetch the answer would wait for new records.
        """
        topics = {source.topic for source in sources}
        held = {topic: await self._extents(topic) for topic in topics}
        folded_from = {topic: await self._folded_from(topic) or len(held[topic]) for topic in topics}
        begins: dict[TP, int] = {}
        for tp in sources:
            if not (there := held[tp.topic]):
                self._folding.stand(*tp, SourceUnread(tp.topic, self._group))
                continue
            extent, folded = there.get(tp.partition), folded_from[tp.topic]
            if extent is None or tp.partition >= folded:
                how = "more" if tp.partition >= folded else "fewer"
                raise SourceGrown(tp.topic, f"{how} than {folded}", "every row of it", folded)
            # No await stands between the look and the beginning: nothing is folded in between.
            extent = await self._folding.look(*tp, extent, asking(self._event_log, *tp), read_to.get(tp))
            if (begin := self._folding.begin(*tp, extent, read_to.get(tp))) is not None:
                begins[tp] = begin
        return begins

    async def _folded_from(self, topic: str) -> int | None:
        """From so many partitions, as its changelogs have. The log may have heard of more by now, or may not."""
        for changelog, projection in self._projections.items():
            if topic in self._folding.sources_of(projection):
                with suppress(UnknownTopic):
                    return len(await self._event_log.ends(changelog))
        return None

    async def _extents(self, topic: str) -> Mapping[int, Extent]:
        """None of a topic that was deleted after it was given out, and before the group has heard of it."""
        try:
            return await extents(self._event_log, topic)
        except UnknownTopic:
            return {}

    def say_what_waits(self, sources: Collection[TP], read: Collection[TP]) -> None:
        """Rows are ours and their source is another's, of a release, perhaps, that does not fold them; or nobody's.

        `read`: what the members of the group read, all of them together.
        """
        waits: set[str] = set()
        for shard in (shard for shard in self._folding.shards() if shard.live):
            for topic in self._folding.sources_of(shard.projection):
                tp = TP(topic, shard.partition)
                if tp not in read:
                    self._folding.stand(*tp, SourceUnread(topic, self._group))
                elif isinstance(self._folding.lost.get(tp), SourceUnread):
                    self._folding.stand(*tp, None)
                if tp in read and tp not in sources:
                    waits.add(f"{shard.projection.name} v{shard.projection.version} for {topic}/{shard.partition}")
        if waits:
            log.warning(
                "%s: not folded until every worker of group %s folds it",
                *(", ".join(sorted(waits)), self._group),
                extra=NAMED,
            )

    async def follows(self, changelog: TP) -> int | None:
        """Where a copy of another worker's rows goes on that is not at a place of the log. None where it lacks what is
        deleted: it stays as it is, and whoever takes it over is told. Filled further, it would look whole."""
        extent = (await extents(self._event_log, changelog.topic))[changelog.partition]
        if self._shard(changelog).needs() > extent.end:
            self.forget(changelog)
        needed = self._shard(changelog).needs()
        if needed >= extent.first:
            return needed
        log.error("No copy is kept: %s", ChangelogCut(*changelog, needed, extent.first), extra=NAMED)
        return None

    def folded(self, source: TP) -> int | None:
        """Everything below is in all rows that it belongs to, and what follows from it is sent; None if unknown."""
        return self._folding.folded(*source)

    def ready(self) -> None:
        """All is restored, and the sources flow but for those that an operator has to decide about. Who starts us does
        not wait for that."""
        still = sorted(f"{topic}/{partition}" for topic, partition in self._folding.lost)
        more = [f"{len(still) - SHOWN} more"] if len(still) > SHOWN else []
        but = f" but for {', '.join(still[:SHOWN] + more)}: /ready says why" if still else ""
        os.write(1, f"ready{but}\n".encode())

    async def stop(self) -> None:
        """The streams have ended and their last commit is done; a recovery may still be at work."""
        await self._leave_off()
        await self._fence.stop()
        for shard in list(self._folding.shards()):
            self._folding.close(shard.changelog, shard.partition)

    def failed(self, error: BaseException) -> None:
        """No exception may leave a handler: Faust would acknowledge the batch and go on."""
        log.critical("The worker cannot go on: %s", error, exc_info=error)
        logging.shutdown()
        os._exit(EX_SOFTWARE)

    def _reaches_its_claim(self, changelog: TP) -> bool:
        claim = self._claims.get(changelog)
        shard = self._folding.shard(*changelog)
        position = None if shard is None else shard.store.position()
        return claim is not None and position is not None and position >= claim

    async def _leave_off(self) -> None:
        """Faust begins another recovery while the last one's end still works: nobody else would stop that."""
        for catching_up in self._catching_up:
            catching_up.cancel()
        await asyncio.gather(*self._catching_up, return_exceptions=True)

    def _open(self, changelog: str, partition: int) -> None:
        self._folding.open(self._projections[changelog], partition, self._stores.open(changelog, partition))

    def _shard(self, changelog: TP) -> Shard[Any]:
        shard = self._folding.shard(*changelog)
        assert shard is not None, f"{changelog} is not assigned to this worker"
        return shard
