"""What another thread may see of a fold at work: where it stands, and single rows. Reads only, waits for nothing."""

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple, cast

from faust.types import TP

from streams.fold.folding import Folding
from streams.fold.shard import Shard
from streams.fold.tally import Tally
from streams.health.watch import Counts, Sight
from streams.log.port import TopicPartition
from streams.owner.faust_seam import RowApp, RowAssignor


class Proof(NamedTuple):
    """A row as it stands here, and what stands for it."""

    version: int
    row: Any
    at: tuple[str, int, int]
    """Topic, partition and offset of the last event that changed it."""
    folded: dict[str, int]
    """Of each source of the partition, the next offset to fold."""


class Glance:
    def __init__(self, app: RowApp, folding: Folding, tally: Tally) -> None:
        self._app, self._folding, self.tally = app, folding, tally

    def sight(self) -> Sight:
        """While rows are restored, changelogs have positions too."""
        phase = self._app.phase()
        positions: dict[TopicPartition, int | None] = {}
        for shard in self._ours():
            for topic in self._folding.sources_of(shard.projection):
                positions[topic, shard.partition] = _lowest(positions, (topic, shard.partition), shard.next(topic))
            if phase == "restoring":
                last = shard.store.position()
                positions[shard.changelog, shard.partition] = None if last is None else last + 1
        lost = {place: str(why) for place, why in self._folding.lost.items() if place in positions}
        return Sight(phase, positions, self._folding.beats, lost, self._elsewhere(positions))

    def _elsewhere(self, positions: Collection[TopicPartition]) -> Collection[TopicPartition]:
        """While a release is brought in worker by worker, one of the one before may read what our rows wait for."""
        assignor = cast(RowAssignor, self._app.assignor)
        others = assignor.read() - assignor.assigned_actives()
        return [place for place in positions if TP(*place) in others]

    def counts(self) -> Counts:
        return {
            "rows_written": ("Rows acknowledged by changelogs.", self.tally.rows),
            "refused_events": ("Events that a projection did not take.", self._refused()),
            "dead_letters": ("Records refused and kept.", self.tally.letters),
            "events_folded": ("Events that all their projections have.", self._folding.events),
        }

    def _refused(self) -> dict[str, float]:
        """Every projection has a series, so that the first refusal is an increase."""
        return {each.name: self.tally.refused[each.name] for each in self._folding.projections}

    def row(self, projection: str, key: str) -> Proof | Literal["elsewhere", "unknown"] | None:
        """A row of a partition that is ours. Not found: another worker may hold it."""
        known = [found for found in self._folding.projections if found.name == projection]
        if not known:
            return "unknown"
        if self._app.phase() != "working":
            return "elsewhere"
        for shard in self._ours():
            if shard.projection.name == projection and (stored := shard.stored(key)) is not None:
                sources = self._folding.sources_of(shard.projection)
                folded = {topic: shard.next(topic) or 0 for topic in sources}
                return Proof(shard.projection.version, stored.row, stored.at, folded)
        return None

    def _ours(self) -> Iterator[Shard[Any]]:
        """Standby copies are left out: they are somebody else's rows."""
        actives = self._app.assignor.assigned_actives()
        return (shard for shard in list(self._folding.shards()) if TP(shard.changelog, shard.partition) in actives)


def _lowest(positions: dict[TopicPartition, int | None], tp: TopicPartition, next_: int | None) -> int | None:
    """Several projections read one source: it stands where the slowest of them stands."""
    if tp not in positions:
        return next_
    before = positions[tp]
    return None if before is None or next_ is None else min(before, next_)
