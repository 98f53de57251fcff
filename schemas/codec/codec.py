"""Bytes to events and back. `decode` is total: whatever the bytes, it returns an Event or a Rejected."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Protocol, cast

from schemas.codec.catalog import SINGLE_OBJECT, StoredEvent, catalog
from schemas.codec.json_form import event_of_json
from schemas.codec.reader import Reader, read_all
from schemas.envelope import Event, Origin
from schemas.rejected import RecordRejected, RefusedValue, Rejected, Unusable

MAX_BYTES = 1 << 20
"""Kafka's own default for a record. Larger values are refused unread: an event can take many times its bytes.

A dead letter has no limit here: it holds a refused value as it is, once.
"""

AT_ONCE = 500
"""Values that are read in one call: in C no other thread has a turn meanwhile."""

CONFLUENT = 0
Headers = Iterable[tuple[str, bytes]]
SchemaIds = Mapping[int, StoredEvent]


class Incoming(Protocol):
    """The parts of a record that decoding needs, beside where it stands."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


def encode(event: Event) -> bytes:
    """Avro single-object encoding with the newest schema. Raises Unusable for what `decode` would refuse."""
    return catalog().by_class[type(event)].write(event)


def decode(
    value: bytes | None, origin: Origin, timestamp_ms: int, headers: Headers = (), ids: SchemaIds | None = None
) -> Event | Rejected:
    """`ids` are a registry's schema ids, asked for before: decoding never waits. None: what this process was told."""
    try:
        return _decode(value, origin, timestamp_ms, headers, ids)
    except Unusable as error:
        return Rejected(error.reason, error.detail, origin)


def decode_batch(
    topic: str, partition: int, records: Sequence[Incoming], ids: SchemaIds | None = None
) -> list[Event | Rejected]:
    """The same for every record of a partition, in order; what most records are takes the shortest way."""

    def named(first: int, n: int) -> Event | Rejected:
        """No value, another form, or bytes that do not fit: the slow way finds out, and names it."""
        record = records[first + n]
        return decode(record.value, Origin(topic, partition, record.offset), record.timestamp, record.headers, ids)

    values = [record.value for record in records]
    # If one of them is too large to be read, each is looked at.
    known = readers() if max(map(len, filter(None, values)), default=0) <= MAX_BYTES else {}
    decoded: list[Event | Rejected] = []
    for first in range(0, len(values), AT_ONCE):
        decoded += read_all(values[first : first + AT_ONCE], known, partial(named, first))
    return decoded


def schema_id(value: bytes | None) -> int | None:
    """The registry's id that a value in Confluent framing asks for."""
    return int.from_bytes(value[1:5], "big") if value and len(value) > 4 and value[0] == CONFLUENT else None


@cache
def readers() -> dict[bytes, Reader]:
    """The first ten bytes of a value in single-object encoding, to what reads the rest."""
    return {SINGLE_OBJECT + fingerprint: _lazy(entry) for fingerprint, entry in catalog().by_fingerprint.items()}


def _lazy(entry: StoredEvent) -> Reader:
    """Compiles when the first such event comes."""

    def read(b: bytes, p: int) -> Event:
        readers()[SINGLE_OBJECT + entry.fingerprint] = entry.read
        return cast(Event, entry.read(b, p))

    return read


def _decode(value: bytes | None, origin: Origin, timestamp_ms: int, headers: Headers, ids: SchemaIds | None) -> Event:
    if isinstance(value, RefusedValue):
        raise Unusable(value.reason, value.detail)
    if not value:
        raise Unusable("empty", "the record has no value")
    if len(value) > MAX_BYTES and value[:10] != SINGLE_OBJECT + catalog().by_class[RecordRejected].fingerprint:
        raise Unusable("too_large", f"{len(value)} bytes are more than {MAX_BYTES}")
    if read := readers().get(value[:10]):
        return _whole(read, value, 10)
    if value[:2] == SINGLE_OBJECT:
        raise Unusable("unknown_schema", f"fingerprint {value[2:10].hex()} belongs to no schema known here")
    if value[0] == CONFLUENT:
        return _whole(_registered(value, ids).read, value, 5)
    if value.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" or _says_json(headers):
        return event_of_json(value, origin, timestamp_ms)
    raise Unusable("unknown_framing", f"begins with {value[:4].hex(' ')}: neither Avro (c3 01 or 00) nor a JSON object")


def _whole(read: Reader, value: bytes, start: int) -> Event:
    try:
        event = read(value, start)
    except Unusable:
        raise
    except UnicodeDecodeError as error:
        raise Unusable("bad_utf8", str(error)) from error
    except Exception as error:
        raise Unusable("malformed", f"the Avro body ends too early or makes no sense: {error}") from error
    assert isinstance(event, Event)
    return event


def _registered(value: bytes, ids: SchemaIds | None) -> StoredEvent:
    ids = catalog().by_id if ids is None else ids
    number = schema_id(value)
    if number is None or number not in ids:
        raise Unusable("unknown_schema", f"schema id {number} names no event known here")
    return ids[number]


def _says_json(headers: Headers) -> bool:
    return any(key.lower() == "content-type" and (value or b"")[:16] == b"application/json" for key, value in headers)
