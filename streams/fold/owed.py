"""What a fold that goes over old ground has still to send: what follows from events that were refused before."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from projections.projection import Projection
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.fold.commit import Publish
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, records_in
from streams.state.changelog import refusal_of, topic_of
from streams.state.refusal import Refusal


class Owed:
    """For a refused event nothing was sent, and its row went another way from there on.

    So whatever follows from such an event, or later from its row, is sent. Some of it may stand in the log already:
    with the same id, which tells repeats apart.
    """

    def __init__(self, projection: Projection[Any], refused: Collection[Refusal], companies: Collection[str]) -> None:
        """Of `companies` everything is owed: which of their rows had a refused event is not known any more."""
        self._projection, self._companies = projection, frozenset(companies)
        self._refused = {(each.company, each.event) for each in refused}
        self._rows: set[str | None] = set()
        self._effects: set[tuple[str, str]] = set()

    def watched(self) -> Projection[Any]:
        """The same projection, of which is noted what is owed."""
        return replace(self._projection, react=self._react) if self._projection.react is not None else self._projection

    def publishing(self, publish: Publish, names: TopicNames) -> Publish:
        """Of what follows from committed events only what is owed. What could not be written then is refused again."""

        async def publish_owed(events: Sequence[Event]) -> None:
            for event in events:
                to_outgoing(event, names)
            if owed := [event for event in events if (event.company, event.id) in self._effects]:
                await publish(owed)

        return publish_owed

    def sent(self) -> None:
        self._effects.clear()

    def _react(self, state: Any, event: Event, now: int) -> tuple[Event, ...]:
        assert self._projection.react is not None
        followed = self._projection.react(state, event, now)
        key = self._projection.key(event)
        if (event.company, event.id) in self._refused:
            self._rows.add(key)
        if key in self._rows or event.company in self._companies:
            self._effects.update((each.company, each.id) for each in followed)
        return followed


async def refused_before(
    event_log: EventLog, projection: Projection[Any], names: TopicNames, partition: int
) -> list[Refusal]:
    """By every earlier version whose changelog still stands."""
    versions = [replace(projection, version=version) for version in range(projection.version)]
    standing = await event_log.describe([topic_of(version, names.prefix) for version in versions])
    found: dict[tuple[str, bytes], Refusal] = {}
    for changelog in standing:
        starts, ends = await event_log.starts(changelog), await event_log.ends(changelog)
        start, end = starts.get(partition, 0), ends.get(partition, 0)
        async for record in records_in(event_log, changelog, partition, start, end):
            key, value = record.key or b"", record.value
            if value is not None and (refusal := refusal_of(key, value)) is not None:
                found[changelog, key] = refusal
    return list(found.values())
