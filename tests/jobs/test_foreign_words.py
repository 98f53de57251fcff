"""What our own processes say of foreign words can always be written: a call, an error, a record that says anything."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import gate
from processors.gate import Offer
from processors.training import said
from processors.training.admit import NotAdmitted
from schemas.codec.codec import decode, encode
from schemas.envelope import Event, Origin
from schemas.jobs import JobFailed
from schemas.rejected import Rejected, Unusable
from schemas.tools import ToolCallProposed
from schemas.training import TrainingRequested
from streams.fold.batch import NoEvent
from streams.fold.dead_letter import dead_letter
from streams.log.port import Record
from tests.jobs.test_saga import requested, run

# As a model writes them, in JSON: what parses is not yet a word that an event may hold.
NAMES = ["", ".", "..", "../a", "a/b", "a" * 65, "a" * 300, "\\ud800", "a\\u0000", "\\u202ea", "a\\n", "\\ue000"]
LONG, DEEP = json.dumps({"a": "b" * 300_000}), '{"a":' * 65 + "1" + "}" * 65
FIRST = {"id": "r1", "company": "acme", "time": 1, "correlation": "r1"}
REQUEST = TrainingRequested(**FIRST, base_model="b")


def call(name: str, arguments: str = "{}") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def written(events: list[Event]) -> list[Event]:
    """As they come out of the log again."""
    found = [decode(encode(event), Origin("t", 0, 0), 0) for event in events]
    assert found == events
    return events


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("offered", [True, False])
def test_a_name_that_no_tool_can_have_ends_the_job(name: str, offered: bool) -> None:
    """Also where the job's own snapshot, which anybody can write, offers such a tool."""
    tools = (
        gate.canonical([Offer(name=json.loads(f'"{name}"'), parameters={})]) if offered and "ud8" not in name else None
    )
    _, sent = run(requested(tools=tools), [call(name)])
    last = written(sent)[-1]
    assert isinstance(last, JobFailed) and last.reason in ("unknown_tool", "malformed_call")


@pytest.mark.parametrize(
    "arguments", [LONG, DEEP, '{"a": "\\ud800"}', '{"\\udfff": 1}'], ids=["long", "deep", "a", "b"]
)
def test_arguments_that_no_event_can_hold_end_the_job(arguments: str) -> None:
    _, sent = run(requested(tools=None), [call("refund", arguments)])
    last = written(sent)[-1]
    assert isinstance(last, JobFailed) and last.reason == "malformed_call"


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_whatever_a_model_says_leads_to_events_that_can_be_written(name: str, text: str) -> None:
    for answer in (text, call(json.dumps(name)[1:-1], json.dumps({name: text})), f"{text}{call(text)}"):
        _, sent = run(requested(tools=None), [answer, "Done."])
        for event in written(sent):
            assert not isinstance(event, ToolCallProposed) or len(event.tool) <= 64


@pytest.mark.parametrize("detail", ["\ud800" * 3, "漢" * 100_000, "\0\x1b[31m", ""])
def test_what_a_training_run_ends_with_can_be_written(detail: str) -> None:
    refused = said.refused(REQUEST, NotAdmitted("unfit", detail), 1, 2)
    written([refused, said.failed(REQUEST, "ended", detail, 1, 2)])
    assert len(refused.detail.encode()) <= said.DETAIL


@pytest.mark.parametrize("timestamp", [-1, 0, 2**62])
def test_a_dead_letter_can_be_written_whatever_the_record_says(timestamp: int) -> None:
    headers = (("\x00" * 300, b"\xff"), ("", b""))
    record = Record("x" * 249, 3, 7, timestamp, b"\xff/\x00", b"\x00" * 70_000, headers)
    refused = NoEvent(record, Rejected("bad_word", "d" * 70_000, Origin(record.topic, 3, 7)))
    (letter,) = written([dead_letter(refused)])
    assert (letter.value, letter.topic) == (record.value, record.topic)


def test_a_call_whose_id_would_end_a_header_is_no_event() -> None:
    """It is the idempotency key of a request: refused where it enters, and nobody writes one."""
    call_ = ToolCallProposed(**FIRST, call="c1QQX-Evil: 1", job="j1", tool="refund", arguments="{}")
    sent = decode(encode(call_).replace(b"QQ", b"\r\n"), Origin("tool-call", 0, 0), 0)
    assert isinstance(sent, Rejected) and sent.reason == "bad_id"
    with pytest.raises(Unusable, match="call is no id"):
        encode(msgspec.structs.replace(call_, call="c1\r\nX-Evil: 1"))
