"""Changelogs stand before anybody writes or reads them."""

from collections.abc import Sequence
from typing import Any

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.errors import Misconfigured
from streams.log.port import BATCH_LIMIT, EventLog, TopicSpec
from streams.state.changelog import topic_of

COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.5",
    # A record batch of ours (`streams.fold.pieces.BATCH_BYTES`) always fits, whatever the broker's own limit is.
    "max.message.bytes": str(BATCH_LIMIT + 12),
}


async def prepare(event_log: EventLog, projections: Sequence[Projection[Any]], names: TopicNames) -> None:
    """Changelogs with as many partitions as their sources, or a refusal that says which topics disagree."""
    for projection in projections:
        sources = {names.wire(topic): len(await event_log.ends(names.wire(topic))) for topic in projection.topics}
        counts = set(sources.values())
        if len(counts) != 1:
            raise Misconfigured(f"{projection.name} folds {sources}: all must have the same number of partitions.")
        changelog, partitions = topic_of(projection, names.prefix), counts.pop()
        await event_log.create([TopicSpec(changelog, partitions, COMPACTED)])
        found = len(await event_log.ends(changelog))
        if found != partitions:
            raise Misconfigured(
                f"{changelog} has {found} partitions and its sources have {partitions}: raise the projection's version "
                f"to fold it anew."
            )
