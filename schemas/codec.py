"""Bytes to events and back. `decode` is total: whatever the bytes, it returns an Event or a Rejected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import cast

import msgspec
from fastavro import schemaless_reader, schemaless_writer

from schemas.catalog import Entry, catalog, kind_of
from schemas.envelope import Event, Origin
from schemas.json_form import event_of_json
from schemas.rejected import Rejected, Unusable
from schemas.upcast import Fields, lift

MAX_BYTES = 1 << 20
"""Kafka's own default for a record. Larger values are rejected unread."""

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
NO_IDS: Mapping[int, Entry] = {}
MAX_TIME = 253_402_300_799_999_999
"""The last microsecond of the year 9999: what databases and calendars can hold."""

sane_company = lru_cache(4096)(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}").fullmatch)
Headers = Iterable[tuple[str, bytes]]


def encode(event: Event) -> bytes:
    """Avro single-object encoding with the newest schema of the event's type."""
    entry = catalog().newest(type(event))
    body = BytesIO()
    body.write(SINGLE_OBJECT + entry.fingerprint)
    schemaless_writer(body, entry.schema, msgspec.to_builtins(event, builtin_types=(bytes,)))
    return body.getvalue()


def decode(
    value: bytes | None, origin: Origin, timestamp_ms: int, headers: Headers = (), ids: Mapping[int, Entry] = NO_IDS
) -> Event | Rejected:
    """`ids` holds the registry's schema ids, resolved before: decoding never waits for a registry."""
    try:
        return _decode(value, origin, timestamp_ms, headers, ids)
    except Unusable as error:
        return Rejected(error.reason, error.detail, origin)


def schema_id(value: bytes | None) -> int | None:
    """The registry id that a value asks for, if it is in Confluent framing."""
    if value is None or value[:1] != CONFLUENT or len(value) < 5:
        return None
    return int.from_bytes(value[1:5], "big")


def _decode(
    value: bytes | None, origin: Origin, timestamp_ms: int, headers: Headers, ids: Mapping[int, Entry]
) -> Event:
    if not value:
        raise Unusable("empty", "the record has no value")
    if len(value) > MAX_BYTES:
        raise Unusable("too_large", f"{len(value)} bytes are more than {MAX_BYTES}")
    if value[:2] == SINGLE_OBJECT:
        return checked(_single_object(value))
    if value[:1] == CONFLUENT:
        return checked(_confluent(value, ids))
    if value.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" or _says_json(headers):
        return _representable(checked(event_of_json(value, origin, timestamp_ms)))
    raise Unusable("unknown_framing", f"begins with {value[:4].hex(' ')}: neither Avro (c3 01 or 00) nor a JSON object")


def _says_json(headers: Headers) -> bool:
    return any(key.lower() == "content-type" and value.startswith(b"application/json") for key, value in headers)


def _single_object(value: bytes) -> Event:
    entry = catalog().by_fingerprint.get(value[2:10])
    if entry is None:
        raise Unusable("unknown_schema", f"fingerprint {value[2:10].hex()} belongs to no schema known here")
    return _avro(value, 10, entry)


def _confluent(value: bytes, ids: Mapping[int, Entry]) -> Event:
    number = schema_id(value)
    entry = ids.get(number) if number is not None else None
    if entry is None:
        raise Unusable("unknown_schema", f"schema id {number} names no event known here")
    return _avro(value, 5, entry)


def _avro(value: bytes, start: int, entry: Entry) -> Event:
    body = BytesIO(value)
    body.seek(start)
    try:
        fields = cast(Fields, schemaless_reader(body, entry.schema, None))
    except UnicodeDecodeError as error:
        raise Unusable("bad_utf8", f"{entry.kind}: {error}") from error
    except Exception as error:
        raise Unusable("malformed", f"{entry.kind}: {type(error).__name__} {error}") from error
    if body.tell() != len(value):
        raise Unusable("trailing_bytes", f"{entry.kind}: {len(value) - body.tell()} bytes after its end")
    if (fields["type"], fields["version"]) != entry.kind:
        raise Unusable("mismatch", f"says {fields['type']}.v{fields['version']} in a schema of {entry.kind}")
    return msgspec.convert(lift(entry.kind, fields, entry.newest), entry.cls)


def checked(event: Event) -> Event:
    """What Avro's types cannot say about an envelope."""
    if not sane_company(event.company):
        raise Unusable("bad_company", f"company {event.company[:140]!r}: 1 to 128 letters, digits, dots, _ or -")
    if not 0 < len(event.id) <= 128 or not 0 < len(event.correlation) <= 128:
        raise Unusable("bad_id", "id and correlation have 1 to 128 characters")
    if not 0 <= event.time <= MAX_TIME:
        raise Unusable("bad_time", f"time {event.time} is not microseconds since 1970, up to the year 9999")
    return event


def _representable(event: Event) -> Event:
    """JSON knows integers that no Avro long can hold."""
    try:
        encode(event)
    except Exception as error:
        raise Unusable("wrong_type", f"{kind_of(type(event))} does not fit its Avro schema: {error}") from error
    return event
