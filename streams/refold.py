"""The rows as they should be, folded from the log with nothing but memory, and the rows as a changelog holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from heapq import merge
from typing import Any, NamedTuple, TypeVar

import msgspec

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.changelog import RESERVED, RowCodec, marker_of
from streams.fold import Batch, Found, decode_from, fold
from streams.log import EventLog

State = TypeVar("State", bound=msgspec.Struct)


class Held(NamedTuple):
    """One changelog partition: the newest value of each row, and how far each source has been folded into them."""

    rows: Mapping[str, msgspec.Struct]
    markers: Mapping[str, int]


async def held(event_log: EventLog, projection: Projection[Any], changelog: str) -> Mapping[int, Held]:
    """What the changelog says, by partition."""
    codec = RowCodec(projection.state)
    found: dict[int, Held] = {}
    for partition in await event_log.ends(changelog):
        newest = await _newest(event_log, changelog, partition)
        rows = {k.decode(): codec.decode(v).row for k, v in newest.items() if not k.startswith(RESERVED)}
        markers = (marker_of(key, value) for key, value in newest.items())
        found[partition] = Held(rows, {marker.topic: marker.next for marker in markers if marker is not None})
    return found


async def refold(
    event_log: EventLog, projection: Projection[Any], names: TopicNames, partition: int, stops: Mapping[str, int]
) -> Mapping[str, msgspec.Struct]:
    """The fold of each source's records below its stop. Several sources are taken in the order of their timestamps."""
    sources = [names.wire(topic) for topic in projection.topics]
    events = [await _events(event_log, topic, partition, stops.get(topic, 0)) for topic in sources]
    ordered = list(merge(*events, key=_time)) if len(events) > 1 else events[0]
    rows = fold(projection, ordered, _nothing_known).rows
    return {key: state for key, (state, _) in rows.items()}


async def _newest(event_log: EventLog, topic: str, partition: int) -> dict[bytes, bytes]:
    newest: dict[bytes, bytes] = {}
    async for records in _from_start(event_log, topic, partition, None):
        for record in records:
            key = record.key or b""
            if record.value is None:
                newest.pop(key, None)
            else:
                newest[key] = record.value
    return newest


async def _events(event_log: EventLog, topic: str, partition: int, stop: int) -> list[Found]:
    events: list[Found] = []
    async for records in _from_start(event_log, topic, partition, stop):
        events += decode_from(Batch(topic, partition, 0, stop, records), 0).events
    return events


async def _from_start(
    event_log: EventLog, topic: str, partition: int, stop: int | None
) -> AsyncIterator[Sequence[Any]]:
    start = (await event_log.starts(topic))[partition]
    async for records in event_log.read(topic, partition, start, stop):
        yield records


def _time(found: Found) -> int:
    return found[0].timestamp


def _nothing_known(_: Sequence[str]) -> Mapping[str, Any]:
    return {}
