"""What was done to the log of a seed: whatever the judge must know, and can no longer see for itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record
from streams.state.changelog import marker_key, topic_of
from tests.kill.releases import ALL
from tests.kill.world import Servers, until_async

Place = tuple[str, int]
"""A topic on the wire and a partition."""
Own = tuple[str, str, int]
"""A projection and a place."""
NOWHERE = "OFFSET"


class Unfolded(NamedTuple):
    """Offsets [start, stop) of one source that were deleted before one projection had folded them.

    Where `stop` is lower, the topic was made anew when it was folded up to `start`: nothing is passed.
    """

    start: int
    stop: int

    def holds(self, offset: int) -> bool:
        return self.start <= offset < self.stop

    @property
    def offered(self) -> str:
        """As a worker spells where to go on: of a topic that was made anew it does not know."""
        return str(self.stop) if self.stop > self.start else NOWHERE


@dataclass
class Injected:
    kept: dict[Place, list[Record]] = field(default_factory=dict)
    """What was deleted, read just before."""
    lost: dict[Own, Unfolded] = field(default_factory=dict)
    """By projection and place."""
    unseen: dict[Place, Unfolded] = field(default_factory=dict)
    """Above every marker: of a record that is refused there, somebody may have written a letter, or not."""
    begins: dict[Own, Unfolded] = field(default_factory=dict)
    """By projection and place: what was gone when the projection began there."""

    starts: dict[Place, int] = field(default_factory=dict)
    """Where the log begins now."""

    def cut(self, folded: Mapping[Own, int]) -> None:
        """Made anew: everybody goes on from its first record, by an operator's word."""
        self.lost |= {own: Unfolded(marker, 0) for own, marker in folded.items()}

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

    async def remembered() -> bool:
        return servers.remembers(place, stop)

    await until_async("the broker would remember it when it is killed", 60, remembered)


async def made_anew(log: KafkaLog, servers: Servers, names: TopicNames, topic: str, injected: Injected) -> None:
    ends = await log.ends(topic)
    for partition, start in (await log.starts(topic)).items():
        old = [record async for record in records(log, (topic, partition), start, ends[partition])]
        injected.kept.setdefault((topic, partition), []).extend(old)
        injected.starts.pop((topic, partition), None)
    broker = AIOKafkaAdminClient(bootstrap_servers=servers.bootstrap)
    await broker.start()
    try:
        await broker.delete_topics([topic])
    finally:
        await broker.close()

    async def made() -> bool:
        async with KafkaLog(servers.bootstrap) as anew:
            return topic in await admin.create(anew, names)

    await until_async(f"{topic} is made anew", 60, made)


async def delete_unfolded(
    log: KafkaLog, servers: Servers, place: Place, markers: Mapping[str, int], share: float, injected: Injected
) -> int:
    """There is something above all markers. Returns the first offset that is left."""
    above = max(markers.values())
    end = (await log.ends(place[0]))[place[1]]
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
    own = marker_key(topic, partition)
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
