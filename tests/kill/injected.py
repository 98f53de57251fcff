"""What was done to the log of a seed: whatever the judge must know, and can no longer see for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.state.changelog import topic_of

Place = tuple[str, int]
"""A topic on the wire and a partition."""
MARKER = b"\x00marker/"


class Unfolded(NamedTuple):
    """Offsets [start, stop) of one source that were deleted before one projection had folded them."""

    start: int
    stop: int

    def holds(self, offset: int) -> bool:
        return self.start <= offset < self.stop


class Rebuild(NamedTuple):
    """From here on projections are folded anew, over ground that others have folded before."""

    sources: frozenset[str]
    """On the wire."""
    ends: Mapping[Place, int]
    """What the log held by then of all that might be said again."""


@dataclass
class Injected:
    kept: dict[Place, list[Record]] = field(default_factory=dict)
    """What was deleted, read just before."""
    lost: dict[tuple[str, str, int], Unfolded] = field(default_factory=dict)
    """By projection and place."""
    unseen: dict[Place, Unfolded] = field(default_factory=dict)
    """Above every marker: of a record that is refused there, somebody may have written a letter, or not."""
    rebuilds: list[Rebuild] = field(default_factory=list)


async def delete(log: KafkaLog, servers: str, place: Place, stop: int, injected: Injected) -> None:
    kept = injected.kept.setdefault(place, [])
    kept += [record async for record in records(log, place, (await log.starts(place[0]))[place[1]], stop)]
    broker = AIOKafkaAdminClient(bootstrap_servers=servers)
    await broker.start()
    try:
        await broker.delete_records({TopicPartition(*place): RecordsToDelete(stop)})
    finally:
        await broker.close()


async def delete_unfolded(
    log: KafkaLog, servers: str, place: Place, markers: Mapping[str, int], share: float, injected: Injected
) -> int:
    """Waits for something above all markers. Returns the first offset that is left."""
    above = max(markers.values())
    async with asyncio.timeout(60):
        while (end := (await log.ends(place[0]))[place[1]]) <= above:  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.1)
    stop = above + 1 + int(share * (end - above - 1))
    await delete(log, servers, place, stop, injected)
    injected.lost |= {(name, *place): Unfolded(marker, stop) for name, marker in markers.items()}
    injected.unseen[place] = Unfolded(above, stop)
    return stop


async def markers(
    log: KafkaLog, place: Place, folding: Iterable[Projection[Any]], names: TopicNames
) -> dict[str, int | None]:
    """How far each projection has folded a source; none where it has not begun."""
    topic, partition = place
    own = MARKER + f"{topic}/{partition}".encode()
    found: dict[str, int | None] = {}
    for projection in folding:
        if topic in map(names.wire, projection.topics):
            found[projection.name] = None
            async for record in records(log, (topic_of(projection, names.prefix), partition), 0):
                if record.key == own:
                    found[projection.name] = json.loads(record.value or b"")["next"]
    return found


async def records(log: KafkaLog, place: Place, first: int, stop: int | None = None) -> AsyncIterator[Record]:
    async for batch in log.read(*place, first, stop):
        for record in batch:
            yield record
