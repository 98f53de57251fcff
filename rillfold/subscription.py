"""Follows what is promoted, and keeps a folder of it: each version is fetched once, and verified."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
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
from schemas.errors import Retry, RillfoldError
from streams.log.port import EventLog, Record
from streams.log.tail import Tail
from streams.state.refusal import Untaken, blamed_on_events

POSITION = ".subscription.json"
LOOK_SECONDS = 1.0
PAUSES = (1.0, 5.0, 30.0)
"""Before a store that is away is asked again; one that lacks an adapter is asked so often, and no more."""

Say = Callable[[str], None]


class Arrived(NamedTuple):
    """A version that answers for its role from now on, whole and as the log says."""

    adapter: str
    version: int
    sha256: str
    folder: Path


class _News(NamedTuple):
    row: Adapter
    partition: int
    next: int
    """Where to go on once it is here."""


class _Position(msgspec.Struct):
    topic: str
    next: dict[int, int]


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
        self._topic = settings.topic_names().wire(TOPIC)
        self._tail = Tail(log, self._topic, self._take)
        self._rows: dict[str, Adapter] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._news: deque[_News] = deque()
        self._next: dict[int, int] = {}

    async def arriving(self) -> AsyncIterator[Arrived]:
        """Until it is left. The first time begins with what answers now; later ones go on where the last was left."""
        self._next = self._kept()
        await self._caught_up()
        if not self._next:
            self._news = deque(news for name in self._rollouts if (news := self._answering(name)) is not None)
        while True:
            while self._news:
                news = self._news[0]
                if not self._withdrawn(news.row) and (arrived := await self._fetched(news.row)) is not None:
                    yield arrived
                self._news.popleft()
                if news.next:
                    self._reached({**self._next, news.partition: news.next})
            self._reached(dict(self._tail.positions))
            await self._sleep(LOOK_SECONDS)
            await self._caught_up()

    async def _caught_up(self) -> None:
        while True:
            try:
                return await self._tail.catch_up()
            except Retry as error:
                self._say(str(error))
                await self._sleep(PAUSES[0])

    def _take(self, record: Record) -> None:
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
        if answers and record.offset >= self._next.get(record.partition, 0) and (news := self._answering(answers)):
            self._news.append(news._replace(partition=record.partition, next=record.offset + 1))

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
        return _News(row, 0, 0) if row is not None and row.event else None

    def _withdrawn(self, row: Adapter) -> bool:
        """Since it was promoted."""
        return row.version in self._rollouts[row.adapter].withdrawn

    async def _fetched(self, row: Adapter) -> Arrived | None:
        """One that cannot be had holds up no other; a store that is away is everybody's."""
        folder = self._into / company_of(row.adapter) / row.adapter.partition("/")[2] / str(row.version)
        tried = 0
        while True:
            try:
                await self._registry.fetch(row, folder)
                return Arrived(row.adapter, row.version, row.sha256, folder)
            except RillfoldError as error:
                self._say(f"{AdapterKey(row.adapter, row.version)}: {error}")
                again = isinstance(error, Retry) and (not isinstance(error, ArtifactMissing) or tried < len(PAUSES))
            if not again:
                return None
            await self._sleep(PAUSES[min(tried, len(PAUSES) - 1)])
            tried += 1

    def _kept(self) -> dict[int, int]:
        """Of another log it says nothing."""
        try:
            kept = msgspec.json.decode((self._into / POSITION).read_bytes(), type=_Position)
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}
        return kept.next if kept.topic == self._topic else {}

    def _reached(self, positions: dict[int, int]) -> None:
        if positions != self._next:
            self._next = positions
            replaced(self._into / POSITION, msgspec.json.encode(_Position(self._topic, positions)))
