"""Events of applications beside ours: added once, at the edge, before the first record is read or written."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from schemas.codec.catalog import ADDED, StoredEvent, catalog, classes
from schemas.codec.codec import readers
from schemas.codec.upcast import UPCASTERS, Upcaster
from schemas.envelope import Event, Kind
from schemas.topics import BY_NAME, TOPIC_OF, Topic


class AddedEvent(NamedTuple):
    """The newest class of an event, where it lives, every version that is on record, and the steps between them."""

    cls: type[Event]
    topic: Topic
    stored: Collection[StoredEvent]
    upcasters: Mapping[Kind, Upcaster]


def add(events: Collection[AddedEvent], topics: Collection[Topic] = ()) -> None:
    """From here on they are read, written and judged like ours. What is there already changes nothing."""
    BY_NAME.update((topic.name, topic) for topic in topics)
    new = [each for each in events if each.cls not in TOPIC_OF]
    for each in new:
        TOPIC_OF[each.cls] = each.topic
        ADDED.update({entry.kind: entry for entry in each.stored})
        UPCASTERS.update(each.upcasters)
    if new:
        for made in (classes, catalog, readers):
            made.cache_clear()
