"""Changelogs stand before anybody writes or reads them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.errors import Misconfigured, SourceGrown
from streams.log.port import BATCH_LIMIT, WEEK, EventLog, TopicSpec
from streams.state.changelog import topic_of

COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.5",
    # Only what is cut off is cleaned, and a broker may cut nothing off by time (rillfold/embedded/kafka.py).
    "segment.ms": WEEK,
    # Ten years: that something was removed is read also by who comes back late.
    "delete.retention.ms": "315360000000",
    # A record batch of ours (`streams.fold.pieces.BATCH_BYTES`) always fits, whatever the broker's own limit is.
    "max.message.bytes": str(BATCH_LIMIT + 12),
}


async def prepare(event_log: EventLog, projections: Sequence[Projection[Any]], names: TopicNames) -> None:
    """Changelogs with as many partitions as their sources, or a refusal that says which topics disagree.

    A topic that has grown is refused under a next version, too: that one would split the rows as well.
    """
    for projection in projections:
        sources = {names.wire(topic): len(await event_log.ends(names.wire(topic))) for topic in projection.topics}
        counts = set(sources.values())
        if len(counts) != 1:
            raise Misconfigured(f"{projection.name} folds {sources}: all must have the same number of partitions.")
        changelog, partitions = topic_of(projection, names.prefix), counts.pop()
        before, folded = await _folded_before(event_log, projection, names)
        if folded not in (None, partitions):
            raise SourceGrown(", ".join(sources), str(partitions), before, folded)
        await event_log.create([TopicSpec(changelog, partitions, COMPACTED)])


async def _folded_before(
    event_log: EventLog, projection: Projection[Any], names: TopicNames
) -> tuple[str, int] | tuple[str, None]:
    """By this version, or by the newest one before it that stands: from how many partitions."""
    versions = [replace(projection, version=version) for version in range(projection.version, -1, -1)]
    changelogs = [topic_of(version, names.prefix) for version in versions]
    standing = await event_log.describe(changelogs)
    newest = next((each for each in changelogs if each in standing), "")
    return (newest, standing[newest].partitions) if newest else ("", None)
