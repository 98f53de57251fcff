"""A look at bytes: whether they may hold one of a few events. Most hold something else, and are not decoded."""

from schemas.codec.catalog import SINGLE_OBJECT, catalog, kind_of
from schemas.codec.codec import CONFLUENT
from schemas.envelope import Event

FRAMED = bytes([CONFLUENT])
ESCAPED = b"\\u00"
"""JSON spells the type of an event as it is, or letters of it so."""


class Look:
    """True is a maybe; False is certain."""

    def __init__(self, *events: type[Event]) -> None:
        self._prints = frozenset(each.fingerprint for each in catalog().by_fingerprint.values() if each.cls in events)
        self._spellings = (*(kind_of(event).type.encode() for event in events), ESCAPED)

    def may_be(self, value: bytes | None) -> bool:
        if value is None:
            return False
        if value[:2] == SINGLE_OBJECT:
            return value[2:10] in self._prints
        return value[:1] == FRAMED or any(spelling in value for spelling in self._spellings)
