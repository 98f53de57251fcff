"""Adapters and what is decided of them in the log, told to the engine. No group: each serving worker wants all."""

import asyncio
import json
import logging
import re
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from gpu_workers.serve.catalogue import OWN
from gpu_workers.serve.port import AdapterKey, AdapterSpec, InferenceEngine
from projections.lora_adapters import LORA_ADAPTERS
from projections.rollouts import ROLLOUTS, Rollout
from schemas.adapters import ROLE, AdapterReady
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.errors import Poison, Retry
from schemas.topics import TopicNames
from streams.fairness.slices import unheard
from streams.log.port import EventLog, Record
from streams.log.tail import Tail

TOPIC = "adapter-ready"
LOOK_SECONDS = 0.2
WARMED = 64
"""Of the adapters that became ready while others were read, so many newest are read too; the rest when asked for."""
SHA256 = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)
T = TypeVar("T")


class Remembered(Generic[T]):
    """So much of each company, the oldest forgotten first: what one says costs the others no memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: defaultdict[str, dict[str, T]] = defaultdict(dict)

    def get(self, company: str, key: str) -> T | None:
        return self._of[company].get(key)

    def put(self, company: str, key: str, value: T) -> None:
        own = self._of[company]
        own.pop(key, None)
        own[key] = value
        if len(own) > self._most:
            del own[next(iter(own))]

    def first(self, company: str, key: str, value: T) -> T:
        """What was put there first."""
        if (found := self.get(company, key)) is None:
            self.put(company, key, value)
        return value if found is None else found


class AdapterFollower:
    """What was ready before the start is read when it is asked for; what is promoted later is read at once."""

    def __init__(
        self, events: EventLog, names: TopicNames, engine: InferenceEngine, beat: Callable[[], None] = unheard
    ) -> None:
        self._engine = engine
        self._tail = Tail(events, names.wire(TOPIC), self._take, beat)
        self._news: deque[AdapterSpec] = deque(maxlen=WARMED)
        self._rollouts: Remembered[Rollout] = Remembered(OWN)
        self._stands: Remembered[str] = Remembered(OWN)
        """Of each version the hash that was said of it first."""

    async def catch_up(self) -> None:
        """The engine knows whatever stands in the log at the time of the call. Nothing is read here: nobody waits for
        another's adapters."""
        await self._tail.catch_up()

    async def run(self) -> None:
        """Until cancelled. A log that does not answer is asked again."""
        self._news.clear()
        while True:
            try:
                await self.catch_up()
            except Retry as error:
                log.warning("adapters: %s", error)
            while self._news:
                await self._warm(self._news.popleft())
                await self.catch_up()
            await asyncio.sleep(LOOK_SECONDS)

    async def _warm(self, spec: AdapterSpec) -> None:
        try:
            await self._engine.load(spec)
        except Poison as error:
            log.error("adapter %s is not served: %.500s", spec.key, error)
        except Exception as error:
            log.warning("adapter %s will be read when it is asked for: %.500s", spec.key, error)

    def _take(self, record: Record) -> None:
        origin = record.origin
        event = decode(record.value, origin, record.timestamp, record.headers)
        if not isinstance(event, Event):
            return
        if isinstance(event, AdapterReady):
            self._announce(event, origin)
        self._decide(event)

    def _announce(self, event: AdapterReady, origin: Origin) -> None:
        if (why := odd(event)) is not None:
            log.error("%s: adapter %.100r of company %s is not served: %s", origin, event.adapter, event.company, why)
            return
        if self._stands.first(event.company, str(LORA_ADAPTERS.key(event)), event.sha256) != event.sha256:
            log.error("%s: %s@%d is another already, and stands", origin, event.adapter, event.adapter_version)
            return
        spec = _spec(event)
        self._engine.announce(spec)
        if event.promoted:
            self._news.append(spec)

    def _decide(self, event: Event) -> None:
        """The rows of the projection, and nothing else, say who answers."""
        if (name := ROLLOUTS.key(event)) is not None:
            rollout = ROLLOUTS.fold(self._rollouts.get(event.company, name) or ROLLOUTS.initial(name), event)
            if rollout.newest:  # before, nothing is ready, and nothing that is decided changes anything
                self._rollouts.put(event.company, name, rollout)
                self._engine.obey(rollout)


def odd(event: AdapterReady) -> str | None:
    """Why an event cannot be about an adapter that is served. Nothing in it is ever a path."""
    company, _, role = event.adapter.partition("/")
    if company != event.company:
        return "it bears another company's name"
    if not ROLE.fullmatch(role):
        return "its name is not company/role"
    if not 1 <= event.adapter_version < 1 << 31:
        return f"{event.adapter_version} is no version"
    if not SHA256.fullmatch(event.sha256) or not SHA256.fullmatch(event.base_sha256):
        return "its hash or its base model's is none"
    return None


def _spec(event: AdapterReady) -> AdapterSpec:
    """How an adapter was trained, as its own event tells it, decides how it is served."""
    try:
        identity = json.loads(event.identity)
    except (ValueError, RecursionError):
        identity = None
    return AdapterSpec(
        key=AdapterKey(event.adapter, event.adapter_version),
        sha256=event.sha256,
        base_sha256=event.base_sha256,
        company=event.company,
        tools_in_prompt=bool(identity.get("tools_in_prompt", True)) if isinstance(identity, dict) else True,
    )
