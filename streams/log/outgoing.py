"""From an event, typed or as a plain dict, to its record."""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.codec.codec import encode
from schemas.codec.json_form import event_of_fields, shaped
from schemas.envelope import Event
from schemas.rejected import Unusable
from schemas.topics import TOPIC_OF, TopicNames
from streams.errors import TooLarge
from streams.log.port import BATCH_LIMIT, Outgoing, record_limit, size_of

Given = Event | Mapping[str, Any]


def event_of(given: Given, id_: Callable[[], str], now: int) -> Event:
    """Raises `Unusable` with the reason. `id_` and `now` (microseconds) fill what a dict leaves out."""
    return given if isinstance(given, Event) else event_of_fields(given, id_, now)


def record_of(given: Given, id_: Callable[[], str], now: int, names: TopicNames) -> Outgoing:
    """The record of an event or a dict, checked by the one act of writing it."""
    return to_outgoing(given if isinstance(given, Event) else shaped(given, id_, now), names)


def to_outgoing(event: Event, names: TopicNames) -> Outgoing:
    """The topic, key and bytes that the tables in `schemas` give it. The log's own clock stamps it."""
    topic = TOPIC_OF.get(type(event))
    if topic is None:
        raise Unusable("unknown_event", f"{type(event).__name__} belongs to no topic")
    try:
        record = Outgoing(names.wire(topic.name), topic.key(event).encode(), encode(event))
    except UnicodeEncodeError as error:
        raise Unusable("bad_utf8", f"{event.type}: {error}") from error
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        raise Unusable("wrong_type", f"{event.type} does not fit its Avro schema: {error}") from error
    if size_of(record) > (limit := record_limit(topic.max_bytes or BATCH_LIMIT)):
        raise TooLarge(record.topic, size_of(record), limit)
    return record
