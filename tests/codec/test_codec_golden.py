"""Every record that was ever written must go on reading as it did, and both Avro libraries must agree on it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import avro.io
import avro.schema
import msgspec
import pytest
from fastavro import schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.codec.catalog import StoredEvent, catalog, kind_of
from schemas.codec.codec import decode, encode
from schemas.envelope import Kind, Origin
from schemas.topics import TOPIC_OF

WIRE = Path(__file__).parents[1] / "upgrade" / "wire"
ORIGIN = Origin("company-data", 0, 0)
ENTRIES = list(catalog().by_kind.values())


def stored(entry: StoredEvent) -> list[dict]:
    path = WIRE / f"{entry.kind}.json"
    assert path.exists(), f"{entry.kind} has no golden bytes. Run: python tests/upgrade/write.py"
    return json.loads(path.read_text())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.kind))
def test_stored_bytes_still_read_as_the_same_event(entry: StoredEvent) -> None:
    for record in stored(entry):
        event = decode(bytes.fromhex(record["value"]), ORIGIN, 0)
        assert event == msgspec.convert(record["reads"], entry.cls)
        if entry.kind == kind_of(entry.cls):
            assert encode(event).hex() == record["value"], "what is written today differs from what was recorded"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.kind))
def test_both_avro_libraries_and_the_compiled_reader_agree(entry: StoredEvent) -> None:
    apache = avro.io.DatumReader(avro.schema.make_avsc_object(entry.source))
    for record in stored(entry):
        value = bytes.fromhex(record["value"])
        assert value[:2] == b"\xc3\x01"
        by_fastavro = schemaless_reader(BytesIO(value[10:]), entry.schema, None)
        assert apache.read(avro.io.BinaryDecoder(BytesIO(value[10:]))) == by_fastavro
        if entry.kind == kind_of(entry.cls):
            assert decode(value, ORIGIN, 0) == msgspec.convert(by_fastavro, entry.cls)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.kind))
def test_both_avro_libraries_give_the_recorded_fingerprint(entry: StoredEvent) -> None:
    canonical = to_parsing_canonical_form(entry.schema)
    assert fingerprint(canonical, "CRC-64-AVRO") == entry.recorded.fingerprint
    assert avro.schema.make_avsc_object(entry.source).fingerprint("CRC-64-AVRO") == entry.fingerprint
    assert all(record["value"][4:20] == entry.recorded.fingerprint for record in stored(entry))


def test_every_event_on_a_topic_is_in_the_catalog() -> None:
    assert [str(kind_of(cls)) for cls in TOPIC_OF if cls not in catalog().by_class] == []


def test_an_old_version_is_lifted_from_bytes_and_from_json() -> None:
    (full, least) = stored(catalog().by_kind[Kind("agent_output.ingested", 1)])
    from_bytes = decode(bytes.fromhex(full["value"]), ORIGIN, 0)
    assert (from_bytes.version, from_bytes.score) == (2, 1.0)
    fields = {**least["reads"], "version": 1, "success": False}
    del fields["score"]
    from_json = decode(json.dumps(fields).encode(), ORIGIN, 0)
    assert (from_json.version, from_json.score) == (2, 0.0)
