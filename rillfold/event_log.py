"""The event log as the settings say: where it is, what Postgres has of it, and how a story begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from rillfold.app.installed import installed
from rillfold.embedded.state import attach
from rillfold.kafka_access import kafka_access
from rillfold.profiles import of_the_settings
from rillfold.settings import Settings, from_env
from streams.log.port import nothing_to_learn

if TYPE_CHECKING:
    from schemas.topics import TopicNames
    from streams.log.kafka.access import KafkaAccess
    from streams.log.kafka.log import KafkaLog
    from streams.log.port import EventLog, Learn
    from streams.read_model.reads import Reads

Found = TypeVar("Found")


def reached(settings: Settings) -> KafkaAccess:
    """The Kafka of these settings, and who we are to it: what every client of a process is made from."""
    return kafka_access(settings, attach(settings).bootstrap_servers)


def event_log(settings: Settings, client_id: str = "rillfold") -> KafkaLog:
    """An application that cannot be taken is refused before the first record is read or written."""
    from streams.log.kafka.log import KafkaLog

    installed(settings)
    access = reached(settings)
    return KafkaLog(access, client_id=client_id, learn=learn(settings), session_timeout=settings.session_timeout)


def read_model(settings: Settings, answer_seconds: float = 0) -> Reads:
    from streams.read_model.reads import Reads

    return Reads(attach(settings).postgres_dsn, settings.read_model(), answer_seconds)


def in_log(work: Callable[[EventLog, TopicNames], Awaitable[Found]]) -> Found:
    """For a command: what `work` finds in the log of the environment, or writes to it."""

    async def found(settings: Settings) -> Found:
        async with event_log(settings) as log:
            return await work(log, settings.topic_names())

    return asyncio.run(found(of_the_settings(from_env())))


def learn(settings: Settings) -> Learn:
    """Without a registry nothing of its client is imported."""
    if settings.schema_registry is None:
        return nothing_to_learn
    from streams.log.kafka.registry import learner

    return learner(settings.schema_registry)


def now() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


def first(company: str) -> dict[str, Any]:
    """The envelope of an event that begins a story."""
    event = str(uuid4())
    return {"id": event, "company": company, "time": now(), "correlation": event}
