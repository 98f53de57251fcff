"""What was done to the log of a seed: whatever the judge must know, and can no longer see for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.state.changelog import topic_of
from tests.kill.releases import ALL
from tests.kill.world import Servers

Place = tuple[str, int]
"""A topic on the wire and a partition."""
MARKER = b"\x00marker/"


class Unfolded(NamedTuple):
    """Offsets [start, stop) of one source that were deleted before one projection had folded them."""

    start: int
    stop: int

    def holds(self, offset: int) -> bool:
        return self.start <= offset < self.stop


@dataclass
class Injected:
    kept: dict[Place, list[Record]] = field(default_factory=dict)
    """What was deleted, read just before."""
    lost: dict[tuple[str, str, int], Unfolded] = field(default_factory=dict)
    """By projection and place."""
    unseen: dict[Place, Unfolded] = field(default_factory=dict)
    """Above every marker: of a record that is refused there, somebody may have written a letter, or not."""
    begins: dict[tuple[str, str, int], Unfolded] = field(default_factory=dict)
    """By projection and place: what was gone when the projection began there."""

    starts: dict[Place, int] = field(default_factory=dict)
    """Where the log begins now."""

    def begun(self, place: Place, stop: int, folding: Container[str], names: TopicNames) -> None:
        """Who has no marker there begins behind what is deleted, whenever that will be."""
        for projection in ALL:
            if place[0] in map(names.wire, projection.topics) and projection.name not in folding:
                self.begins[(projection.name, *place)] = Unfolded(0, stop)


async def delete(log: KafkaLog, servers: Servers, place: Place, stop: int, injected: Injected) -> None:
    kept = injected.kept.setdefault(place, [])
    kept += [record async for record in records(log, place, (await log.starts(place[0]))[place[1]], stop)]
    broker = AIOKafkaAdminClient(bootstrap_servers=servers.bootstrap)
    await broker.start()
    try:
        await broker.delete_records({TopicPartition(*place): RecordsToDelete(stop)})
    finally:
        await broker.close()
    injected.starts[place] = stop
    async with asyncio.timeout(60):
        while not servers.remembers(place, stop):  # noqa: ASYNC110 - a broker that is killed before would forget it
            await asyncio.sleep(0.1)


async def delete_unfolded(
    log: KafkaLog, servers: Servers, place: Place, markers: Mapping[str, int], share: float, injected: Injected
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
