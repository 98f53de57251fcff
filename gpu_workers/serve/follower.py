"""Every adapter.ready in the log, told to the engine. No group: each serving worker wants all of them."""

from __future__ import annotations

import asyncio
import json
import logging

from gpu_workers.serve.port import AdapterKey, AdapterSpec, InferenceEngine
from schemas.adapters import AdapterReady
from schemas.codec import decode
from schemas.errors import Poison, Retry
from schemas.topics import TopicNames
from streams.log import EventLog, Record
from streams.tail import Tail

TOPIC = "adapter-ready"
LOOK_SECONDS = 0.2

log = logging.getLogger(__name__)


class AdapterFollower:
    """What was ready before the start is read when it is asked for; what becomes ready later is read at once."""

    def __init__(self, events: EventLog, names: TopicNames, engine: InferenceEngine) -> None:
        self._engine = engine
        self._tail = Tail(events, names.wire(TOPIC), self._take)
        self._news: list[AdapterSpec] = []
        self._telling = asyncio.Lock()

    async def catch_up(self, read: bool = True) -> None:
        """The engine knows whatever stands in the log at the time of the call."""
        await self._tail.catch_up()
        async with self._telling:
            while self._news:
                await self._tell(self._news.pop(0), read)

    async def run(self) -> None:
        """Until cancelled. A log that does not answer is asked again."""
        while True:
            try:
                await self.catch_up()
            except Retry as error:
                log.warning("adapters: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _tell(self, spec: AdapterSpec, read: bool) -> None:
        if not read:
            self._engine.announce(spec)
            return
        try:
            await self._engine.load(spec)
        except Poison as error:
            log.error("adapter %s is not served: %s", spec.key, error)
        except Retry as error:
            log.warning("adapter %s will be read when it is asked for: %s", spec.key, error)
            self._engine.announce(spec)

    def _take(self, record: Record) -> None:
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if isinstance(event, AdapterReady):
            if event.adapter.partition("/")[0] == event.company:
                self._news.append(spec_of(event))
            else:
                log.error("adapter %s bears another name than its company %s: not served", event.adapter, event.company)


def spec_of(event: AdapterReady) -> AdapterSpec:
    """How an adapter was trained, as its own event tells it, decides how it is served."""
    try:
        identity = json.loads(event.identity)
    except ValueError:
        identity = None
    return AdapterSpec(
        key=AdapterKey(event.adapter, event.adapter_version),
        sha256=event.sha256,
        base_sha256=event.base_sha256,
        tools_in_prompt=bool(identity.get("tools_in_prompt", True)) if isinstance(identity, dict) else True,
    )
