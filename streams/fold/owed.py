"""What a fold that goes over old ground has still to send: what follows from events that were refused before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

from projections.projection import Projection
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.fairness.slices import Slices, in_turns, unheard
from streams.fold.commit import Publish
from streams.fold.old_ground import Since
from streams.fold.shard import Shard
from streams.log.outgoing import to_outgoing
from streams.log.partitioner import partition_of
from streams.log.port import EventLog, Extent, TopicPartition, extents, records_in
from streams.state.changelog import Loss, anew_from, loss_of, marker_of, missing_of, refusal_of, topic_of
from streams.state.refusal import Refusal


class Owed:
    """For a refused event nothing was sent, and its row went another way from there on.

    So whatever follows from such an event, or later from its row, is sent. Some of it may stand in the log already:
    with the same id, which tells repeats apart.
    """

    def __init__(self, projection: Projection[Any], refused: Iterable[Refusal], companies: Collection[str]) -> None:
        """Of `companies` everything is owed: which of their rows had a refused event is not known any more."""
        self._projection, self._companies = projection, frozenset(companies)
        self._refused = {(each.company, each.event) for each in refused}
        self._rows: set[str | None] = set()
        self._effects: set[tuple[str, str]] = set()

    @classmethod
    def over(cls, shard: Shard[Any], starts: Mapping[str, int], left: Before) -> Owed:
        """Where an earlier catch-up was broken off, the rows of what was refused below are not known: companies are."""
        own = (each for each in shard.refused() if each.offset >= starts.get(each.topic, 0))
        return cls(shard.projection, chain(left.refused, own), left.companies)

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


LOOK_AHEAD = 16
"""A release that was taken back had a version that nobody knows here: so many are looked for beyond one that stands."""


class Before(NamedTuple):
    """What other versions of a projection have left of one partition, where their changelogs still stand.

    Also those of a release that was taken back: it was the last to be at work.
    """

    refused: Sequence[Refusal]
    """Of what is still to be folded."""
    companies: Collection[str]
    """Whose events were refused below."""
    folded: Mapping[str, int]
    """Of each source, how far: what follows from that was sent."""
    anew_from: Mapping[str, int]
    """Of sources that have lost records, as the latest versions saw it: from here on others stand than those of which
    that and the group speak."""


NOTHING_BEFORE = Before((), (), {}, {})


class _Left:
    """What one changelog partition says. A company may have had millions refused: held are those that matter yet."""

    def __init__(self, starts: Mapping[str, int]) -> None:
        self._starts = starts
        self.refused: dict[bytes, Refusal] = {}
        self.companies: set[str] = set()
        self.folded: dict[str, int] = {}
        self._lost: dict[str, bool] = {}
        self._losses: list[Loss] = []

    def note(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.refused.pop(key, None)
        elif (refusal := refusal_of(key, value)) is not None:
            if refusal.offset >= self._starts.get(refusal.topic, 0):
                self.refused[key] = refusal
            else:
                self.companies.add(refusal.company)
        elif (marker := marker_of(key, value)) is not None:
            self.folded[marker.topic] = marker.next
        elif (loss := loss_of(key, value)) is not None:
            self._losses.append(loss)
        elif (missing := missing_of(key, value)) is not None:
            self._lost[missing.topic] = not missing.answered

    def anew_from(self, topic: str) -> int | None:
        own = (loss for loss in self._losses if loss.topic == topic)
        return 0 if self._lost.get(topic) else anew_from(own, self.folded[topic])


async def before(
    event_log: EventLog, shard: Shard[Any], names: TopicNames, starts: Mapping[str, int], beat: Callable[[], None]
) -> Before:
    """`starts`: where the shard folds on, by source."""
    refused: list[Refusal] = []
    companies: set[str] = set()
    folded: dict[str, int] = {}
    anew: dict[str, int] = {}
    slices, partition = Slices(beat), shard.partition
    for changelog in await _other_changelogs(event_log, shard.projection, names):
        extent, left = (await extents(event_log, changelog)).get(partition, Extent(0, 0)), _Left(starts)
        records = records_in(event_log, changelog, partition, extent.first, extent.end, beat)
        async for record in in_turns(records, slices):
            left.note(record.key or b"", record.value)
        refused += left.refused.values()
        companies |= left.companies
        for topic, at in left.folded.items():
            folded[topic] = max(at, folded.get(topic, 0))
            if (first := left.anew_from(topic)) is not None:
                anew[topic] = min(first, anew.get(topic, first))
            else:
                anew.pop(topic, None)  # whoever came after has sent what that one had not
    return Before(refused, companies, folded, anew)


async def _other_changelogs(event_log: EventLog, projection: Projection[Any], names: TopicNames) -> list[str]:
    found: list[str] = []
    start, stop = 0, projection.version + 1 + LOOK_AHEAD
    while True:
        versions = (replace(projection, version=n) for n in range(start, stop) if n != projection.version)
        in_order = [topic_of(version, names.prefix) for version in versions]
        standing = await event_log.describe(in_order)
        found += [name for name in in_order if name in standing]
        start, stop = stop, stop + LOOK_AHEAD
        if not standing:
            return found


class Sent:
    """Which effects stand in the log already. Whoever's group or changelog is gone: the log knows."""

    def __init__(self, event_log: EventLog, names: TopicNames, beat: Callable[[], None] = unheard) -> None:
        self._log, self._names, self._beat = event_log, names, beat
        self._since = Since()
        self._counts: dict[str, int] = {}
        self._known: dict[TopicPartition, set[bytes]] = {}

    def look_from(self, time: int) -> None:
        """What is folded is no older than so many milliseconds. Unless told, all of the log is looked at."""
        if not self._since.reaches(time):
            self._known.clear()

    def publishing(self, publish: Publish) -> Publish:
        """Of these events those that are not there."""

        async def publish_absent(events: Sequence[Event]) -> None:
            if absent := [event for event in events if not await self._stands(event)]:
                await publish(absent)

        return publish_absent

    async def _stands(self, event: Event) -> bool:
        record = to_outgoing(event, self._names)
        if record.topic not in self._counts:
            self._counts[record.topic] = len(await self._log.ends(record.topic))
        place = record.topic, partition_of(record.key or b"", self._counts[record.topic])
        if place not in self._known:
            self._known[place] = await self._read(place)
        return _name(event) in self._known[place]

    async def _read(self, place: TopicPartition) -> set[bytes]:
        topic, partition = place
        since = self._since.time
        starts = await self._log.starts(topic) if since is None else await self._log.offsets_at(topic, since)
        end, found, slices = (await self._log.ends(topic))[partition], set[bytes](), Slices(self._beat)
        records = records_in(self._log, topic, partition, starts[partition], end, self._beat)
        async for record in in_turns(records, slices):
            event = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(event, Event):
                found.add(_name(event))
        return found


def _name(event: Event) -> bytes:
    """In a few bytes: a rebuild holds as many as there are effects."""
    return blake2b(f"{event.company}/{event.type}/{event.id}".encode(), digest_size=12).digest()
