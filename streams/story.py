"""One story out of the log: every event with its correlation, wherever it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from schemas.codec import decode
from schemas.envelope import Event, Origin
from schemas.errors import Poison
from schemas.rejected import Rejected
from schemas.topics import TOPICS, TopicNames
from streams.log import EventLog

# Where a story begins that somebody asks for by a job, a run or an event.
FIRST_LOOK = ("automation-job", "training-request")
EVENTS = 10_000


class Told(NamedTuple):
    """An event of the story, where it stands, and when the log took it (milliseconds)."""

    origin: Origin
    timestamp: int
    event: Event


class StoryUnknown(Poison):
    """Nothing in the looked-at part of the log goes by this name."""


async def story(log: EventLog, names: TopicNames, name: str, since: int) -> list[Told]:
    """All events that share the correlation of `name` (a job, a run, an event, a correlation), in the log's time.

    `since` bounds the look back, in milliseconds since the epoch. Topics are named as on the wire in `origin`.
    """
    correlation = await _correlation(log, names, name, since)
    found = [told async for told in _holding(log, names, correlation, since, (t.name for t in TOPICS))]
    mine = [told for told in found if told.event.correlation == correlation]
    return sorted(mine, key=lambda told: (told.timestamp, told.event.time))


async def _correlation(log: EventLog, names: TopicNames, name: str, since: int) -> str:
    others = tuple(topic.name for topic in TOPICS if topic.name not in FIRST_LOOK)
    for topics in (FIRST_LOOK, others):
        async for told in _holding(log, names, name, since, topics):
            event = told.event
            if name in (event.id, event.correlation, getattr(event, "job", None), getattr(event, "run", None)):
                return event.correlation
    raise StoryUnknown(f"No event of job, run, id or correlation {name!r} is in the log since then. See `--hours`.")


async def _holding(
    log: EventLog, names: TopicNames, text: str, since: int, topics: Iterable[str]
) -> AsyncIterator[Told]:
    """Events whose bytes hold the text: both encodings keep strings as they are, so nothing else is decoded."""
    needle, left = text.encode(), EVENTS
    for topic in map(names.wire, topics):
        ends = await log.ends(topic)
        for partition, start in (await log.offsets_at(topic, since)).items():
            if start >= ends[partition]:
                continue
            async for batch in log.read(topic, partition, start, ends[partition]):
                for record in batch:
                    if needle not in (record.value or b""):
                        continue
                    event = decode(record.value, record.origin, record.timestamp, record.headers)
                    if not isinstance(event, Rejected):
                        left -= 1
                        yield Told(record.origin, record.timestamp, event)
                    if left <= 0:
                        return
