"""The event log as the settings say: where it is, and which registry knows its schema ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rillfold.embedded.state import attach
from streams.log.port import nothing_to_learn

if TYPE_CHECKING:
    from rillfold.settings import Settings
    from streams.log.kafka.log import KafkaLog
    from streams.log.port import Learn


def event_log(settings: Settings, client_id: str = "rillfold") -> KafkaLog:
    from streams.log.kafka.log import KafkaLog

    servers = attach(settings).bootstrap_servers
    return KafkaLog(servers, client_id=client_id, learn=learn(settings), session_timeout=settings.session_timeout)


def learn(settings: Settings) -> Learn:
    """Without a registry nothing of its client is imported."""
    if settings.schema_registry is None:
        return nothing_to_learn
    from streams.log.kafka.registry import learner

    return learner(settings.schema_registry)
