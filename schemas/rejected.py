"""Records that could not be understood, kept byte for byte."""

from collections.abc import Mapping
from typing import Self

import msgspec

from schemas.envelope import Event, Origin
from schemas.errors import Poison
from schemas.words import Document, shortened

DETAIL = 900
REACTION_FAILED = "reaction_failed"
"""The one reason for which a good event has a letter: the folds take it, and a redrive does not send it again."""
REASONS: Mapping[str, str] = {
    "empty": "The record has no value (a tombstone), or an empty one.",
    "too_large": "The value is larger than 1 MiB, or a whole record batch larger than 32 MiB when it is unpacked.",
    "unknown_framing": "The first bytes are neither Avro's nor a JSON object's.",
    "unknown_schema": "The fingerprint or schema id belongs to no event known here.",
    "malformed": "The Avro body ends too early, or its lengths make no sense; or a record batch cannot be unpacked.",
    "trailing_bytes": "Bytes follow the end of the Avro body.",
    "mismatch": "The type or version inside differs from the schema it was written with.",
    "invalid_json": "Not JSON, or not a JSON object.",
    "too_deep": "JSON nested beyond what any event needs; also JSON that an event carries as text.",
    "bad_utf8": "A string is not UTF-8.",
    "unknown_event": "The type names no event, or no version that ever existed.",
    "newer_version": "Written by a newer release: upgrade, then redrive.",
    "wrong_type": "A field is missing, unknown, or of the wrong type; the detail has its path.",
    "wrong_topic": "An event of another topic: whoever reads this one cannot use it.",
    "missing_company": "The event names no company.",
    "bad_company": "The company is not 1 to 128 letters, digits, dots, underscores or hyphens.",
    "bad_id": "An id (of an event, a run, a job, a call) is not 1 to 128 printable characters.",
    "bad_word": "A word outside of its kind, in length or in what it is made of; the detail names field and limit.",
    "bad_time": "time lies outside 1970 to 9999, in microseconds.",
    REACTION_FAILED: "A good event over which an application's reaction has failed; the detail names the reaction.",
}
"""Every reason for which a record is refused: machine readable, and what it means."""


class Rejected(msgspec.Struct, frozen=True):
    """A record that is no event. Whoever decoded it still holds the bytes."""

    reason: str
    detail: str
    origin: Origin


class Unusable(Poison):
    """These bytes are no event, and never will be. The detail may repeat foreign words, but not at length."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = shortened(detail, DETAIL)
        super().__init__(f"{reason}: {self.detail}")


class RefusedValue(bytes):
    """A value that is no event's, whatever it says: whoever fetched it says why. Quick readers take plain bytes."""

    reason: str
    detail: str

    def __new__(cls, value: bytes | memoryview, reason: str, detail: str) -> Self:
        made = super().__new__(cls, value)
        made.reason, made.detail = reason, detail
        return made


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A Kafka header."""

    key: Document
    value: bytes | None = None


class RecordRejected(Event, frozen=True, kw_only=True):
    """A record went to the dead-letter topic."""

    type: str = "record.rejected"
    topic: Document
    partition: int
    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
    reason: Document
    """Machine readable: one of schemas.rejected.REASONS."""
    detail: Document = ""


class RecordRedriven(Event, frozen=True, kw_only=True):
    """A refused record was sent once more to where it came from. Its letter is the causation."""

    type: str = "record.redriven"
    topic: Document
    partition: int
    offset: int
    """Where the record stood that was sent again."""
