"""Follows what is promoted, and keeps a folder of it: each version is fetched once, and verified."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from gpu_workers.errors import ArtifactMissing
from gpu_workers.serve.follower import TOPIC, odd
from gpu_workers.serve.port import AdapterKey
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from projections.rollouts import ROLLOUTS, Rollout
from rillfold.registry import AdapterRegistry
from rillfold.settings import Settings
from rillfold.written import replaced
from schemas.adapters import AdapterReady, company_of
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.errors import Retry, RillfoldError, Stop
from streams.log.port import EventLog, Record
from streams.log.tail import Tail
from streams.state.refusal import Untaken, blamed_on_events

POSITION = ".subscription.json"
LOOK_SECONDS = 1.0
PAUSES = (1.0, 5.0, 30.0)
"""Before a store that is away is asked again; one that lacks an adapter is asked so often, and no more."""

Say = Callable[[str], None]


class PlaceUnknown(Stop):
    """Of what is promoted in one log nothing follows for another."""

    def __init__(self, into: Path, topic: str) -> None:
        super().__init__(
            f"{into / POSITION} names a place that {topic} does not hold: the topic was made anew or has lost records, "
            f"or the folder belongs to another installation. Give an empty folder: it begins with what answers now."
        )


class AnotherFilter(Stop):
    """Where one filter has come to is no place for another, which has taken nothing yet."""

    def __init__(self, into: Path, kept: tuple[str | None, str | None]) -> None:
        of = "{}/{}".format(*(name or "*" for name in kept))
        super().__init__(f"{into} follows {of}, as {into / POSITION} says: one filter, one folder. Give an empty one.")


class Arrived(NamedTuple):
    """A version that answers for its role from now on, whole and as the log says."""

    adapter: str
    version: int
    sha256: str
    folder: Path


class _Place(msgspec.Struct, frozen=True):
    """Of a partition. Another log may reach as far: there, another record stands before it."""

    next: int
    record: str
    """sha256 of what the record before it says."""


class _News(NamedTuple):
    row: Adapter
    places: Mapping[int, _Place]
    """Where to go on once it is here; nowhere yet in the middle of what answers now."""


class _Position(msgspec.Struct):
    topic: str
    places: dict[int, _Place]
    company: str | None = None
    role: str | None = None


class AdapterSubscription:
    """Of all companies and roles, or those that are named. `say` hears what is not fetched, and why."""

    def __init__(
        self,
        log: EventLog,
        settings: Settings,
        into: Path,
        company: str | None = None,
        role: str | None = None,
        *,
        say: Say,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry, self._into = AdapterRegistry(log, settings), into
        self._company, self._role = company, role
        self._say, self._sleep = say, sleep
        self._log, self._topic = log, settings.topic_names().wire(TOPIC)

    async def arriving(self) -> AsyncIterator[Arrived]:
        """Until it is left. The first time begins with what answers now; later ones go on where the last was left."""
        await self._begun()
        while True:
            while self._news:
                news = self._news.popleft()
                if (arrived := await self._fetched(news.row)) is not None:
                    yield arrived
                if news.places:
                    self._reached(news.places)
            self._reached(self._places())
            await self._sleep(LOOK_SECONDS)
            await self._caught_up()

    async def _begun(self) -> None:
        """All of the log is read: it alone says whether what is kept is a place in it."""
        self._tail = Tail(self._log, self._topic, self._take)
        self._rows: dict[str, Adapter] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._news: deque[_News] = deque()
        self._seen: dict[int, _Place] = {}
        self._told = self._kept()
        self._from = dict(self._told or {})
        self._unmet = dict(self._from)
        await self._caught_up()
        if self._unmet:
            raise PlaceUnknown(self._into, self._topic)
        if self._told is None:
            self._news = deque(news for name in self._rollouts if (news := self._answering(name)) is not None)

    async def _caught_up(self) -> None:
        while True:
            try:
                return await self._tail.catch_up()
            except Retry as error:
                self._say(str(error))
                await self._sleep(PAUSES[0])

    def _take(self, record: Record) -> None:
        place = _Place(record.offset + 1, sha256(record.value or b"").hexdigest())
        self._seen[record.partition] = place
        if self._unmet.get(record.partition) == place:
            del self._unmet[record.partition]
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if not isinstance(event, Event) or (isinstance(event, AdapterReady) and odd(event)):
            return
        try:
            with blamed_on_events():
                answers = self._decided(event)
        except Untaken as error:
            self._say(f"The event at {record.origin} is passed over: {error}")
            return
        # Of what was told before only what answers now is of use.
        told = (start := self._from.get(record.partition)) is not None and record.offset < start.next
        if answers and not told and (news := self._answering(answers)):
            self._news.append(news._replace(places=self._places()))

    def _places(self) -> Mapping[int, _Place]:
        """Also of partitions that are not read again yet."""
        return {**self._from, **self._seen}

    def _decided(self, event: Event) -> str | None:
        """The adapter whose role another version answers for now."""
        if (row := LORA_ADAPTERS.key(event)) is not None:
            self._rows[row] = LORA_ADAPTERS.fold(self._rows.get(row) or LORA_ADAPTERS.initial(row), event)
        if (name := ROLLOUTS.key(event)) is None:
            return None
        before = self._rollouts.get(name) or ROLLOUTS.initial(name)
        self._rollouts[name] = ROLLOUTS.fold(before, event)
        return name if self._rollouts[name].stable != before.stable else None

    def _answering(self, name: str) -> _News | None:
        company, _, role = name.partition("/")
        if self._company not in (None, company) or self._role not in (None, role):
            return None
        row = self._rows.get(f"{name}/{self._rollouts[name].stable}")
        return _News(row, {}) if row is not None and row.event else None

    def _withdrawn(self, row: Adapter) -> bool:
        """Since it was promoted."""
        return self._rollouts[row.adapter].is_withdrawn(row.version)

    async def _fetched(self, row: Adapter) -> Arrived | None:
        """None where it cannot be had, or is withdrawn by then: the others wait for such a one no longer than all
        pauses. A store that is away is everybody's, and the log goes on meanwhile."""
        folder = self._into / company_of(row.adapter) / row.adapter.partition("/")[2] / str(row.version)
        arrived, tried = None, 0
        while not self._withdrawn(row):
            if arrived is not None:
                return arrived
            try:
                await self._registry.fetch(row, folder)
                arrived = Arrived(row.adapter, row.version, row.sha256, folder)
            except RillfoldError as error:
                self._say(f"{AdapterKey(row.adapter, row.version)}: {error}")
                lacks = isinstance(error, ArtifactMissing) and tried >= len(PAUSES)
                if lacks or not isinstance(error, Retry):
                    return None
                await self._sleep(PAUSES[min(tried, len(PAUSES) - 1)])
                tried += 1
            await self._caught_up()
        return None

    def _kept(self) -> dict[int, _Place] | None:
        """None the first time."""
        try:
            kept = msgspec.json.decode((self._into / POSITION).read_bytes(), type=_Position)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if kept.topic != self._topic:
            raise PlaceUnknown(self._into, self._topic)
        if (kept.company, kept.role) != (self._company, self._role):
            raise AnotherFilter(self._into, (kept.company, kept.role))
        return kept.places

    def _reached(self, places: Mapping[int, _Place]) -> None:
        if places != self._told:
            self._told = dict(places)
            position = _Position(self._topic, self._told, self._company, self._role)
            replaced(self._into / POSITION, msgspec.json.encode(position))
