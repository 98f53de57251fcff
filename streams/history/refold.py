"""The rows as they should be, folded from the log with nothing but memory, and the rows as a changelog holds them."""

from collections.abc import Container, Mapping, Sequence
from heapq import merge
from typing import Any, NamedTuple, TypeVar

import msgspec

from projections.projection import Projection
from schemas.topics import TopicNames
from streams.fold.batch import Batch, Found, decode_from, fold
from streams.fold.old_ground import Letters, letters_of
from streams.log.port import EventLog, TopicPartition, records_in
from streams.state.changelog import RESERVED, Loss, RowCodec, loss_of, marker_of, refusal_of, spelled
from streams.state.refusal import Refusal, Untaken, refusal

State = TypeVar("State", bound=msgspec.Struct)
Sourced = tuple[str, Found]
"""An event with the topic that it stands in."""


class Held(NamedTuple):
    """One changelog partition: the newest value of each row, and how far each source has been folded into them."""

    rows: Mapping[str, msgspec.Struct]
    markers: Mapping[str, int]
    refused: Sequence[Refusal] = ()
    """Events that are not in the rows, and need not be."""
    unreadable: Sequence[str] = ()
    """Keys of rows that cannot be read again."""
    lost: Sequence[Loss] = ()
    """Stretches of sources that are in no row, or in rows and not in the log, by an operator's word."""


class Fresh(NamedTuple):
    """What a fold from the start gives, and the events that it does not take although nobody refused them before."""

    rows: Mapping[str, msgspec.Struct]
    untaken: Sequence[Refusal]


async def held(event_log: EventLog, projection: Projection[Any], changelog: str) -> Mapping[int, Held]:
    """What the changelog says, by partition."""
    codec = RowCodec(projection.state)
    found: dict[int, Held] = {}
    for partition in await event_log.ends(changelog):
        newest = await _newest(event_log, changelog, partition)
        rows, unreadable = _read(codec, newest)
        markers = (marker_of(key, value) for key, value in newest.items())
        folded = {marker.topic: marker.next for marker in markers if marker is not None}
        refused = [each for key, value in newest.items() if (each := refusal_of(key, value)) is not None]
        lost = [loss for key, value in newest.items() if (loss := loss_of(key, value)) is not None]
        found[partition] = Held(rows, folded, refused, unreadable, lost)
    return found


async def refold(
    event_log: EventLog, projection: Projection[Any], names: TopicNames, partition: int, part: Held
) -> Fresh:
    """The fold of each source's records below its marker, less those that were refused: by name, or with a letter.

    Several sources are taken in the order of their timestamps.
    """
    sources = [names.wire(topic) for topic in projection.topics]
    # Where a topic was made anew, another event may stand where one was refused.
    refused = {(each.topic, each.offset, each.event) for each in part.refused}
    letters = await letters_of(event_log, names, {(topic, partition): 0 for topic in sources})
    stretches = [Batch(topic, partition, 0, part.markers.get(topic, 0), ()) for topic in sources]
    events = [await _events(event_log, names, stretch, refused, letters) for stretch in stretches]
    ordered = list(merge(*events, key=lambda sourced: sourced[1][0].timestamp)) if len(events) > 1 else events[0]
    try:
        rows = fold(projection, [found for _, found in ordered], lambda _: {}).rows
    except Untaken:
        return _refolded_singly(projection, partition, ordered)
    return Fresh({key: state for key, (state, _) in rows.items()}, ())


def _refolded_singly(projection: Projection[Any], partition: int, events: Sequence[Sourced]) -> Fresh:
    rows: dict[str, Any] = {}
    untaken: list[Refusal] = []
    for topic, found in events:
        try:
            folded = fold(projection, [found], lambda keys: {key: rows[key] for key in keys if key in rows})
        except Untaken as error:
            untaken.append(refusal(projection, topic, partition, found[0].offset, found[1], error))
        else:
            rows.update((key, state) for key, (state, _) in folded.rows.items())
    return Fresh(rows, untaken)


def _read(codec: RowCodec[Any], newest: Mapping[bytes, bytes]) -> tuple[dict[str, msgspec.Struct], list[str]]:
    rows: dict[str, msgspec.Struct] = {}
    unreadable: list[str] = []
    for key, value in newest.items():
        if not key.startswith(RESERVED):
            try:
                rows[spelled(key)] = codec.decode(value).row
            except (msgspec.MsgspecError, RecursionError):
                unreadable.append(spelled(key))
    return rows, unreadable


async def _newest(event_log: EventLog, topic: str, partition: int) -> dict[bytes, bytes]:
    newest: dict[bytes, bytes] = {}
    async for record in records_in(event_log, topic, partition, (await event_log.starts(topic))[partition]):
        key = record.key or b""
        if record.value is None:
            newest.pop(key, None)
        else:
            newest[key] = record.value
    return newest


async def _events(
    event_log: EventLog,
    names: TopicNames,
    stretch: Batch,
    refused: Container[tuple[str, int, str]],
    letters: Mapping[TopicPartition, Letters],
) -> list[Sourced]:
    topic, here = stretch.topic, names.events_on(stretch.topic)
    told = letters[topic, stretch.partition]
    events: list[Sourced] = []
    start = (await event_log.starts(topic))[stretch.partition]
    async for records in event_log.read(topic, stretch.partition, start, stretch.next):
        found = decode_from(stretch._replace(records=records), 0, here).events
        events += [
            (topic, (record, event))
            for record, event in found
            if (topic, record.offset, event.id) not in refused and not told.hold(record)
        ]
    return events
