"""One story out of the log: every event with its correlation, wherever it stands."""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.errors import Poison
from schemas.rejected import Rejected
from schemas.topics import BY_NAME, TopicNames
from streams.log.port import EventLog, Record, records_in

# Where a story begins that somebody asks for by a job, a run or an event.
FIRST_LOOK = ("automation-job", "training-request")
EVENTS = 10_000


class StoryEvent(NamedTuple):
    """An event of the story, where it stands, and when the log took it (milliseconds)."""

    origin: Origin
    timestamp: int
    event: Event


class StoryUnknown(Poison):
    """Nothing that the company said in the looked-at part of the log goes by this name."""


async def story(log: EventLog, names: TopicNames, company: str, name: str, since: int) -> list[StoryEvent]:
    """All events of a company that share the correlation of `name` (a job, a run, an event, a correlation), in order.

    Another company may have the very same ids: what it said is not looked at. `since` bounds the look back, in
    milliseconds since the epoch. Topics are named as on the wire in `origin`.
    """
    correlation = await _correlation(log, names, company, name, since)
    found = [told async for told in _holding(log, names, company, correlation, since, tuple(BY_NAME))]
    mine = [told for told in found if told.event.correlation == correlation]
    return sorted(mine, key=lambda told: (told.timestamp, told.event.time))


async def _correlation(log: EventLog, names: TopicNames, company: str, name: str, since: int) -> str:
    others = tuple(name for name in BY_NAME if name not in FIRST_LOOK)
    for topics in (FIRST_LOOK, others):
        async for told in _holding(log, names, company, name, since, topics):
            event = told.event
            if name in (event.id, event.correlation, getattr(event, "job", None), getattr(event, "run", None)):
                return event.correlation
    raise StoryUnknown(
        f"No event of {company} with job, run, id or correlation {name!r} is in the log since then. "
        "See `--company` and `--hours`."
    )


async def _holding(
    log: EventLog, names: TopicNames, company: str, text: str, since: int, topics: Iterable[str]
) -> AsyncIterator[StoryEvent]:
    """The company's events whose bytes hold the text: at most so many, however often others write it.

    Both encodings keep strings as they are, so nothing is decoded that does not hold the text and the company.
    """
    needle, own, left = text.encode(), company.encode(), EVENTS
    async for record in _since(log, map(names.wire, topics), since):
        value = record.value or b""
        if needle not in value or own not in value:
            continue
        event = decode(value, record.origin, record.timestamp, record.headers)
        if isinstance(event, Rejected) or event.company != company:
            continue
        yield StoryEvent(record.origin, record.timestamp, event)
        left -= 1
        if left <= 0:
            return


async def _since(log: EventLog, topics: Iterable[str], since: int) -> AsyncIterator[Record]:
    for topic in topics:
        ends = await log.ends(topic)
        for partition, start in (await log.offsets_at(topic, since)).items():
            async for record in records_in(log, topic, partition, start, ends[partition]):
                yield record
