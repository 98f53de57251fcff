"""Whatever the event, it comes back; whatever the bytes, an Event or a Rejected comes out, in bounded memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import avro.io
import avro.schema
import msgspec
import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec.catalog import catalog
from schemas.codec.codec import AT_ONCE, CONFLUENT, MAX_BYTES, decode, decode_batch, encode
from schemas.company import ConversationIngested, Message, ToolUse
from schemas.envelope import Event, Origin
from schemas.rejected import REASONS, Rejected
from streams.log.port import Record
from tests.support.events import events

ROOT = Path(__file__).parents[2]
ORIGIN = Origin("company-data", 3, 9)


@given(events())
def test_every_event_comes_back_from_its_bytes(event: Event) -> None:
    assert decode(encode(event), ORIGIN, 0) == event


@given(events())
def test_every_event_comes_back_from_confluent_framing(event: Event) -> None:
    entry = catalog().by_class[type(event)]
    value = bytes([CONFLUENT]) + (7).to_bytes(4, "big") + encode(event)[10:]
    assert decode(value, ORIGIN, 0, ids={7: entry}) == event
    assert decode(value, ORIGIN, 0, ids={}).reason == "unknown_schema"


@given(events())
def test_every_event_comes_back_from_json(event: Event) -> None:
    assert decode(msgspec.json.encode(event), ORIGIN, 0) == event


@given(events())
def test_our_bytes_are_what_both_avro_libraries_write_and_read(event: Event) -> None:
    entry, body = catalog().by_class[type(event)], encode(event)[10:]
    fields = msgspec.to_builtins(event, builtin_types=(bytes,))
    by_fastavro = io.BytesIO()
    schemaless_writer(by_fastavro, entry.schema, fields)
    assert by_fastavro.getvalue() == body
    read = schemaless_reader(io.BytesIO(body), entry.schema, None)
    assert msgspec.convert(read, entry.cls) == event
    apache = avro.io.DatumReader(avro.schema.make_avsc_object(entry.source))
    assert apache.read(avro.io.BinaryDecoder(io.BytesIO(body))) == read


@given(events(), st.data())
@settings(max_examples=300)
def test_a_damaged_record_is_an_event_or_a_reason(event: Event, data: st.DataObject) -> None:
    _is_total(_damaged(encode(event), data))
    _is_total(_damaged(msgspec.json.encode(event), data))


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_an_event_or_a_reason(value: bytes) -> None:
    _is_total(value)
    for fingerprint in list(catalog().by_fingerprint)[:3]:
        _is_total(b"\xc3\x01" + fingerprint + value)
    _is_total(b"{" + value)


@given(events(), st.data())
@settings(max_examples=300)
def test_what_we_accept_fastavro_reads_as_the_same(event: Event, data: st.DataObject) -> None:
    value = encode(event)[:10] + _damaged(encode(event)[10:], data)
    decoded = decode(value, ORIGIN, 0)
    if isinstance(decoded, Event):
        entry = catalog().by_fingerprint[value[2:10]]
        body = io.BytesIO(value[10:])
        again = msgspec.convert(schemaless_reader(body, entry.schema, None), entry.cls)
        assert repr(again) == repr(decoded)
        assert body.read() == b""


@given(st.lists(events().map(encode) | st.binary(max_size=40) | st.none(), max_size=20))
def test_a_batch_decodes_as_its_records_do(values: list[bytes | None]) -> None:
    records = [Record("company-data", 3, n, n, None, value) for n, value in enumerate(values)]
    one_by_one = [decode(r.value, Origin(r.topic, r.partition, r.offset), r.timestamp) for r in records]
    assert repr(decode_batch("company-data", 3, records)) == repr(one_by_one)


def test_a_long_batch_names_each_record_by_its_own_place() -> None:
    value = bytes.fromhex(json.loads((ROOT / "tests/upgrade/wire/job.completed.v1.json").read_text())[0]["value"])
    bad = {0, 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 6}
    values = [b"no event" if n in bad else value for n in range(2 * AT_ONCE + 7)]
    decoded = decode_batch("t", 3, [Record("t", 3, 100 + n, n, None, each) for n, each in enumerate(values)])
    assert {each.origin.offset - 100 for each in decoded if isinstance(each, Rejected)} == bad
    assert len(decoded) == len(values)


def test_a_record_full_of_the_smallest_items_stays_below_40_mib() -> None:
    """No array has a limit of its own: the record's bytes are one."""
    calls = (ToolUse(name="n", arguments=""),) * ((MAX_BYTES - 200) // 3)
    envelope = {"id": "e", "company": "acme", "time": 1, "correlation": "e"}
    value = encode(ConversationIngested(**envelope, agent="a", messages=(Message(role="r", tool_calls=calls),)))
    assert MAX_BYTES - 300 < len(value) <= MAX_BYTES
    tracemalloc.start()
    try:
        assert isinstance(decode(value, ORIGIN, 0), ConversationIngested)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


BOMBS = {
    "length 2^62": lambda head: head + b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    "length -1": lambda head: head + b"\x01",
    "endless varint": lambda head: head + b"\xff" * 1_000_000,
    "2^40 items": lambda head: head + b"\x80\x80\x80\x80\x80\x80\x01",
    "gzip": lambda _: b"\x1f\x8b\x08" + b"\x00" * 1_000_000,
    "deep json": lambda _: b'{"a":' + b"[" * 1_000_000,
    "deep json in an event": lambda _: b'{"type":"job.completed","company":"a","job":' + b'{"a":' * 200_000,
    "long integer": lambda _: b'{"type":"job.completed","company":"a","steps":' + b"9" * 1_000_000 + b"}",
    "too large": lambda _: b"{" * 3_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_within_64_mib_of_address_space(bomb: str) -> None:
    """In a child with a limit, so that an allocation that was only asked for fails too."""
    heads = {
        "text": encode_of("job.completed")[:10],
        "array": encode_of("conversation.ingested")[: -len(b"\x00")],
    }
    for head in heads.values():
        child = subprocess.run(
            [sys.executable, "-c", CHILD], input=BOMBS[bomb](head), cwd=ROOT, capture_output=True, timeout=60
        )
        assert child.returncode == 0, child.stderr.decode()[-500:]
        assert json.loads(child.stdout)["reason"] in REASONS


CHILD = """
import json, resource, sys
from schemas.codec.codec import decode, readers
from schemas.codec.catalog import catalog
from schemas.envelope import Origin
for entry in catalog().by_fingerprint.values():
    entry.read
value = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
print(json.dumps({"reason": decode(value, Origin("t", 0, 0), 0).reason}))
"""


def encode_of(name: str) -> bytes:
    stored = json.loads((ROOT / "tests" / "upgrade" / "wire" / f"{name}.v1.json").read_text())
    return bytes.fromhex(stored[0]["value"])


def test_a_stored_corpus_and_a_few_seconds_of_coverage_guided_fuzzing_find_nothing(tmp_path: Path) -> None:
    target = ROOT / "tests" / "codec" / "fuzz_decoder.py"
    corpus = ROOT / "tests" / "codec" / "corpus"
    command = [sys.executable, target, "-runs=20000", "-max_total_time=8", "-max_len=4096", "-rss_limit_mb=2048"]
    # Through a shell that stays: a peak of memory begins with that of whoever forks, and this process is large.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    child = subprocess.run([*shell, *command, tmp_path, corpus], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-3000:]
    assert "Done" in child.stderr


def _damaged(value: bytes, data: st.DataObject) -> bytes:
    damage = data.draw(st.sampled_from(["cut", "flip", "insert", "double"]))
    at = data.draw(st.integers(0, max(0, len(value) - 1)))
    if damage == "cut":
        return value[:at]
    if damage == "flip":
        return value[:at] + bytes([data.draw(st.integers(0, 255))]) + value[at + 1 :]
    if damage == "insert":
        return value[:at] + data.draw(st.binary(min_size=1, max_size=12)) + value[at:]
    return value[:at] + value[at:] * 2


def _is_total(value: bytes) -> None:
    decoded = decode(value, ORIGIN, 1_790_000_000_000)
    if isinstance(decoded, Rejected):
        assert decoded.reason in REASONS and decoded.origin == ORIGIN
    else:
        assert isinstance(decoded, Event) and decode(encode(decoded), ORIGIN, 0).company == decoded.company
