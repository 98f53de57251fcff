"""From an event to its record."""

from __future__ import annotations

from schemas.codec import encode
from schemas.envelope import Event
from schemas.topics import TOPIC_OF, TopicNames
from streams.log import Outgoing


def to_outgoing(event: Event, names: TopicNames) -> Outgoing:
    """The topic, key and bytes that the tables in `schemas` give it. The log's own clock stamps it."""
    topic = TOPIC_OF[type(event)]
    return Outgoing(names.wire(topic.name), topic.key(event).encode(), encode(event))
