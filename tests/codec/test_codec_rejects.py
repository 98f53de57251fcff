"""Each reason for which a record is refused, by a record that earns it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from struct import pack

import msgspec
import pytest
from fastavro import schemaless_writer

from schemas.codec.catalog import catalog
from schemas.codec.codec import MAX_BYTES, decode, decode_batch, encode
from schemas.company import RecordIngested
from schemas.envelope import Event, Origin, derived_id
from schemas.jobs import JobCompleted
from schemas.rejected import REASONS, Header, RecordRejected, Rejected, Unusable
from schemas.training import TrainingProgressed
from streams.log.port import Record

ORIGIN = Origin("automation-job", 2, 41)
DOCS = Path(__file__).parents[2] / "docs" / "schemas.md"
FIRST = {"id": "e1", "company": "acme_corp", "time": 1, "correlation": "e1"}
EVENT = JobCompleted(**FIRST, job="j1", answer="42", steps=3)
GOOD = encode(EVENT)
LEAST = {"type": "job.completed", "company": "acme_corp", "job": "j1", "answer": "42", "steps": 3}


def given(**changes: object) -> bytes:
    return json.dumps({**LEAST, **changes}).encode()


def changed(**changes: object) -> bytes:
    """As a writer that checks nothing would write it."""
    entry, body = catalog().by_class[JobCompleted], BytesIO()
    schemaless_writer(body, entry.schema, {**msgspec.to_builtins(EVENT), **changes})
    return GOOD[:10] + body.getvalue()


DEEP = encode(RecordIngested(**FIRST, kind="k", data="{" * 64))
IDS = ("id", "correlation", "causation", "job")
BAD = {
    "empty": [None, b""],
    "too_large": [b"{" * (MAX_BYTES + 1), GOOD + b"x" * MAX_BYTES],
    "unknown_framing": [b"\x1f\x8b\x08\x00", b"hello", b"[]", b"\xc3", b"\xff" * 20, b"<xml/>", b'"text"', b"   "],
    "unknown_schema": [b"\xc3\x01", b"\xc3\x01" + b"\x00" * 40, b"\x00", b"\x00\x00\x00\x00\x07abc"],
    "malformed": [GOOD[:-1], GOOD[:11], GOOD[:10], GOOD[:-1] + b"\x80"],
    "trailing_bytes": [GOOD + b"\x00", GOOD * 2],
    "mismatch": [GOOD.replace(b"job.completed", b"job.requested"), GOOD.replace(b"completed\x02", b"completed\x04")],
    "invalid_json": [b"{", b'{"type":', b"{}x", b"{'type': 1}", b'{"a":NaN}', b'{"type":"\\ud800"}'],
    "too_deep": [
        b'{"a":' * 100_000,
        b'{"type":"record.ingested","company":"acme_corp","kind":"k","data":"' + b"[" * 65 + b'"}',
        encode(RecordIngested(**FIRST, kind="k", data="{" * 64)).replace(
            b"\x80\x01" + b"{" * 64, b"\x82\x01" + b"{" * 65
        ),
    ],
    "bad_utf8": [b'{"type":"\xff"}', GOOD.replace(b"42", b"\xff\xfe")],
    "unknown_event": [b"{}", given(type="job.exploded"), given(type=7), given(type=None)],
    "newer_version": [given(version=99)],
    "wrong_type": [
        given(steps="3"),
        given(steps=2**63),
        given(extra=1),
        given(**{"x" * 600_000: 1}),
        given(answer=None),
        given(version="1"),
        given(version=True),
        given(version=0),
        b'{"type":"job.completed","company":"acme_corp"}',
        given(company=7),
    ],
    "missing_company": [b'{"type":"job.completed"}', given(company=""), given(company=None)],
    "bad_company": [given(company=c) for c in ("a/b", "..", "-x", "ü", "a" * 129, "a\n", " a")]
    + [changed(company="a/b"), changed(company=""), changed(company="a" * 200)],
    "bad_id": [
        *(made(**{field: ""}) for made in (given, changed) for field in ("id", "correlation", "causation", "job")),
        *(
            made(**{field: "c" * 129})
            for made in (given, changed)
            for field in ("id", "correlation", "causation", "job")
        ),
        *(made(id=id_) for made in (given, changed) for id_ in ("a\0", "a\nb", "\u202eabc", "\ue000", "a\xa0b")),
    ],
    "bad_word": [
        b'{"type":"tool.revoked","company":"acme_corp","name":"' + name + b'"}'
        for name in (b"", b"../etc", b".", b"a/b", b"a" * 65, b"a\\u0000", b"a b\\t")
    ],
    "bad_time": [given(time=-1), given(time=2**62), changed(time=-1), changed(time=2**62)],
}


@pytest.mark.parametrize(("reason", "value"), [(reason, value) for reason, values in BAD.items() for value in values])
def test_a_bad_record_is_refused_for_its_reason(reason: str, value: bytes | None) -> None:
    rejected = decode(value, ORIGIN, 1_790_000_000_000)
    assert isinstance(rejected, Rejected), rejected
    assert (rejected.reason, rejected.origin) == (reason, ORIGIN)
    assert rejected.detail and len(rejected.detail) < 1000
    (in_a_batch,) = decode_batch(*_place()[:2], [Record(*_place(), 0, None, value)])
    assert in_a_batch == rejected


def test_every_reason_is_earned_by_a_record_and_explained() -> None:
    elsewhere = {"wrong_topic", "reaction_failed"}
    assert set(BAD) | elsewhere == set(REASONS)
    assert [reason for reason in REASONS if f"`{reason}`" not in DOCS.read_text()] == []


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (given(steps="3"), "Expected `int`, got `str` - at `$.steps`"),
        (given(extra=1), "unknown field `extra`"),
        (b'{"type":"job.completed","company":"a","job":"j"}', "missing required field `answer`"),
    ],
)
def test_the_detail_says_where(value: bytes, path: str) -> None:
    assert path in decode(value, ORIGIN, 0).detail


def test_json_may_leave_out_what_the_log_knows() -> None:
    event = decode(given(), ORIGIN, 1_790_000_000_000)
    assert isinstance(event, JobCompleted)
    assert event.id == event.correlation == derived_id(ORIGIN)
    assert event.time == 1_790_000_000_000_000
    assert event == decode(given(), ORIGIN, 1_790_000_000_000), "the same record is the same event, always"


@pytest.mark.parametrize("value", [b"\xef\xbb\xbf" + given(), b" \n" + given() + b"\n"])
def test_json_as_editors_and_shells_write_it(value: bytes) -> None:
    assert isinstance(decode(value, ORIGIN, 0), JobCompleted)


def test_a_content_type_makes_a_clearer_reason() -> None:
    headers = [("Content-Type", b"application/json; charset=utf-8")]
    assert decode(b"hello", ORIGIN, 0, headers).reason == "invalid_json"


def test_a_dead_letter_holds_a_value_that_was_too_large() -> None:
    letter = RecordRejected(
        **FIRST,
        topic="company-data",
        partition=0,
        offset=1,
        timestamp=2,
        key=b"\xff",
        value=b"\x00\xff" * MAX_BYTES,
        headers=(Header(key="h", value=None),),
        reason="too_large",
    )
    assert decode(encode(letter), Origin("dead-letter", 0, 0), 0) == letter


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"company": "a/b"}, "bad_company"),
        ({"company": ""}, "bad_company"),
        ({"id": ""}, "bad_id"),
        ({"correlation": "c" * 129}, "bad_id"),
        ({"causation": ""}, "bad_id"),
        ({"job": "j\0"}, "bad_id"),
        ({"answer": "\ud800"}, "bad_utf8"),
        ({"time": -1}, "bad_time"),
        ({"steps": 2**63}, "wrong_type"),
        ({"steps": -(2**63) - 1}, "wrong_type"),
    ],
)
def test_what_would_be_refused_is_not_written(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        encode(msgspec.structs.replace(EVENT, **changes))
    assert caught.value.reason == reason


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_say_is_refused(number: float) -> None:
    event = TrainingProgressed(**FIRST, run="r", phase="train", step=1, steps=2, loss=0.5)
    value = encode(event)
    assert decode(value.replace(pack("<d", 0.5), pack("<d", number)), ORIGIN, 0).reason == "wrong_type"
    with pytest.raises(Unusable, match="no finite number"):
        encode(msgspec.structs.replace(event, loss=number))


def test_decoded_events_cannot_be_changed() -> None:
    event = decode(GOOD, ORIGIN, 0)
    assert isinstance(event, Event)
    with pytest.raises(AttributeError):
        event.company = "other"


def _place() -> tuple[str, int, int]:
    return ORIGIN.topic, ORIGIN.partition, ORIGIN.offset
