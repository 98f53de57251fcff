"""A file that is wrong is refused with its line and the reason, and nothing of it stands in the log."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from processors.dataset.lessons import Talk, lessons
from processors.tuning import said as written
from processors.tuning.lines import DPO, LINE_BYTES, MOST_LINES, FileRefused, taught
from rillfold.api.tuning import found, uploading
from rillfold.http import limits
from schemas.company import ConversationIngested, FeedbackGiven
from tests.support.tuned import client_of, demo_lines, demo_pairs, line, pair, said, talk

GOOD = line(talk())


def of(*messages: Any, **more: Any) -> str:
    return line({"messages": list(messages), **more})


def calls(arguments: Any, name: str = "look_up", **more: Any) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


ASK = said("user", "What is due?")
MALFORMED: dict[str, tuple[str | bytes, int | None, str, str]] = {
    "empty": ("", None, "empty_file", "no line"),
    "nothing but line ends": ("\n\r\n\n", None, "empty_file", "no line"),
    "no UTF-8": (GOOD.encode() + b'{"messages": "\xff"}\n', 2, "not_utf8", "byte 14"),
    "UTF-16": (GOOD.encode("utf-16"), 1, "not_utf8", "UTF-8"),
    "a byte-order mark": (b"\xef\xbb\xbf" + GOOD.encode(), 1, "bom", "without one"),
    "one line broken": (GOOD + GOOD[:-9] + "\n" + GOOD, 2, "invalid_json", "JSON"),
    "a JSON array": (json.dumps([talk()]), 1, "array", "JSON Lines"),
    "a number": (GOOD + "7\n", 2, "no_object", "object"),
    "a key twice": ('{"messages": [], "messages": []}\n', 1, "invalid_json", "twice"),
    "NaN": ('{"messages": NaN}\n', 1, "invalid_json", "NaN"),
    "a number beyond all": (GOOD + '{"messages": 1e999}\n', 2, "invalid_json", "beyond"),
    "too deep": ('{"messages": ' + "[" * 100 + "]" * 100 + "}\n", 1, "too_deep", "64"),
    "a line too long": (GOOD + of(ASK, said("assistant", "x" * LINE_BYTES)), 2, "too_long", str(LINE_BYTES)),
    "too many lines": (GOOD * 2 + "\n" * MOST_LINES, MOST_LINES + 1, "too_many_lines", str(MOST_LINES)),
    "no messages": (line({}), 1, "no_messages", "list of messages"),
    "messages that are none": (line({"messages": ["hello"]}), 1, "no_object", "messages[0]"),
    "an unknown role": (GOOD + of(said("oracle", "x"), ASK), 2, "unknown_role", "'oracle'"),
    "a late system message": (of(ASK, said("system", "x"), said("assistant", "y")), 1, "late_system", "[1]"),
    "no answer": (GOOD + GOOD + of(ASK), 3, "no_answer", "nothing to learn"),
    "an answer to nobody": (of(said("assistant", "Hello.")), 1, "no_question", "user"),
    "an empty answer": (of(ASK, said("assistant", "")), 1, "empty_answer", "content, tool_calls"),
    "content that is an image": (
        of({"role": "user", "content": [{"type": "image_url"}]}, said("assistant", "x")), 1, "bad_content", "text",
    ),
    "arguments that are no JSON": (of(ASK, calls("{customer: 1}")), 1, "bad_arguments", "arguments"),
    "arguments that are no text": (of(ASK, calls({"customer": 1})), 1, "bad_arguments", "in quotes"),
    "arguments with a key twice": (of(ASK, calls('{"a": 1, "a": 2}')), 1, "bad_arguments", "twice"),
    "a call of no tool of the line": (
        of(ASK, calls("{}"), tools=[{"type": "function", "function": {"name": "other"}}]), 1, "unknown_tool", "look_up",
    ),
    "tools that are none": (of(ASK, said("assistant", "x"), tools=[{"name": "f"}]), 1, "bad_tools", "tools[0]"),
    "a reply to no call": (
        of(ASK, calls("{}"), said("tool", "x", tool_call_id="d"), said("assistant", "x")), 1, "unknown_call", "'d'",
    ),
    "an answer that is not to be learned": (of(ASK, said("assistant", "x", weight=0)), 1, "bad_weight", "weight"),
    "another company's name": (line({**talk(), "company": "globex"}), 1, "company_named", "the key says"),
    "a field that nobody reads": (line({**talk(), "functions": []}), 1, "unknown_field", "'functions'"),
    "half a character": ('{"messages": [{"role": "user", "content": "\\ud800"}]}\n', 1, "bad_text", "content"),
    "dpo among supervised": (GOOD + line(pair()), 2, "mixed_methods", "line 1 for supervised"),
    "dpo and supervised in one line": (line({**pair(), **talk()}), 1, "mixed_methods", "one line teaches one way"),
    "no preferred answer": (line({**pair(), "preferred_output": None}), 1, "missing_field", "preferred_output"),
    "a preferred answer that is none": (line({**pair(), "preferred_output": [ASK]}), 1, "bad_output", "assistant"),
    "two answers alike": (line(pair(better="No.")), 1, "same_answers", "same"),
    "two preferred to one": (line(pair()) + line(pair(better="Done.")), 2, "two_preferred", "line 1"),
}  # fmt: skip


async def test_a_malformed_file_is_refused_with_its_line_and_the_reason(api: Any) -> None:
    async with client_of(api) as client:
        for name, (content, at, code, told) in MALFORMED.items():
            given = content if isinstance(content, bytes) else content.encode()
            with pytest.raises(openai.BadRequestError) as refused:
                await client.files.create(file=("rows.jsonl", given), purpose="fine-tune")
            error = refused.value
            assert (error.code, error.param, error.type) == (code, "file", "invalid_request_error"), name
            assert isinstance(error.body, dict) and told in error.body["message"], (name, error.body)
            assert error.body["detail"] == (None if at is None else {"line": at}), name
            assert at is None or error.body["message"].startswith(f"line {at}: "), name
    assert await api.events("company-data") == []


async def test_another_purpose_another_field_and_no_file(api: Any) -> None:
    async with client_of(api) as client:
        with pytest.raises(openai.BadRequestError, match="fine-tune") as wrong:
            await client.files.create(file=("rows.jsonl", GOOD.encode()), purpose="assistants")
        assert wrong.value.param == "purpose"
        with pytest.raises(openai.BadRequestError, match="expires_after") as wrong:
            after: Any = {"anchor": "created_at", "seconds": 3600}
            await client.files.create(file=("rows.jsonl", GOOD.encode()), purpose="fine-tune", expires_after=after)
        for body, kind in (
            (b"", "multipart/form-data"),
            (b"--x", "multipart/form-data; boundary=x"),
            (b"a=b", "application/x-www-form-urlencoded"),
        ):
            answer = await api.ask("POST", "/v1/files", api.acme, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error", answer.text
    assert await api.events("company-data") == []


async def test_one_that_is_too_large_is_told_so_and_never_held(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announced, it is refused by its head; else as soon as it is over, and what comes runs out unread."""
    monkeypatch.setattr(limits, "FILE_BYTES", 100_000)
    monkeypatch.setattr("rillfold.http.spooled.FILE_BYTES", 100_000)
    async with client_of(api) as client:
        with pytest.raises(openai.APIStatusError) as large:
            await client.files.create(file=("rows.jsonl", GOOD.encode() * 2_000), purpose="fine-tune")
        assert (large.value.status_code, large.value.code) == (413, "too_large")
    headers = {"Content-Type": "multipart/form-data; boundary=y"}
    answer = await api.ask("POST", "/v1/files", api.acme, content=_in_pieces(30), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert await api.events("company-data") == []


async def _in_pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 10_000


async def test_a_client_that_leaves_while_it_sends_leaves_nothing(api: Any) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.acme}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
    )
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + GOOD * 100
    found_at = urlsplit(api.url)
    _, writer = await asyncio.open_connection(found_at.hostname, found_at.port)
    writer.write((head + part).encode())
    await writer.drain()
    writer.close()
    async with client_of(api) as client:  # the server goes on
        with pytest.raises(openai.BadRequestError):
            await client.files.create(file=("rows.jsonl", b""), purpose="fine-tune")
    assert await api.events("company-data") == []


async def test_a_companys_files_come_one_after_another_and_hold_up_nobody_else(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the log is read by everybody; and its other requests wait for none of them."""
    monkeypatch.setattr(found, "WAIT_SECONDS", 0.0)
    plain, begun, may = uploading.look, list[str](), threading.Event()

    def looked(file: Any, draft: Any, names: Any) -> uploading.Looked:
        begun.append(draft.company)
        if draft.company == "acme":
            may.wait(60)
        return plain(file, draft, names)

    monkeypatch.setattr(uploading, "look", looked)
    content = ("rows.jsonl", GOOD.encode())
    async with client_of(api) as acme, client_of(api, api.globex) as globex:
        both = [asyncio.create_task(acme.files.create(file=content, purpose="fine-tune")) for _ in range(2)]
        assert (await globex.files.create(file=content, purpose="fine-tune")).status == "uploaded"
        job = await api.ask("POST", "/company-automation/process", api.acme, json={"data": {"task": "t"}})
        assert job.status_code == 202
        assert sorted(begun) == ["acme", "globex"]
        may.set()
        assert [(await each).status for each in both] == ["uploaded"] * 2


FINE = {
    "CRLF, an empty line, and no end": line(talk()).replace("\n", "\r\n") + "\r\n" + line(talk("Why?")).rstrip(),
    "a developer": of(said("developer", "Be brief."), ASK, said("assistant", "No.")),
    "parts of text": of({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}, said("assistant", "x")),
    "calls, their replies, and an answer": of(
        ASK, calls('{"customer": "C-1"}'), said("tool", "{}", tool_call_id="c"), said("assistant", "No.", weight=1),
        tools=[{"type": "function", "function": {"name": "look_up", "parameters": {}}}], parallel_tool_calls=False,
    ),
    "a pair of a call": line(pair() | {"preferred_output": [calls("{}")]}),
    "the same twice": GOOD * 2,
}  # fmt: skip


async def test_what_is_fine_becomes_rows_each_of_which_a_model_can_be_shown(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found, "WAIT_SECONDS", 0.0)  # nothing is folded here
    fine = {name: text.encode() for name, text in FINE.items()}
    async with client_of(api) as client:
        for content in (*fine.values(), demo_lines(20), demo_pairs(20)):
            sent = await client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
            assert sent.status == "uploaded"
            events = [event for event in await api.events("company-data") if event.entity == sent.id]
            _stands_whole(events, content, sent)


def _stands_whole(told: list[Any], content: bytes, sent: Any) -> None:
    rows = list(taught(content.splitlines(keepends=True)))
    talks = [event for event in told if isinstance(event, ConversationIngested)]
    assert [event.messages for event in talks] == [row.messages for row in rows]
    assert all(each for event in talks for each in lessons(Talk.of("", event.messages), None, "", {}, False))
    corrections = {event.about: event.correction for event in told if isinstance(event, FeedbackGiven)}
    assert [corrections.get(event.id) for event in talks] == [row.preferred for row in rows]
    whole = told[-1]
    assert (whole.type, whole.lines, whole.size) == ("file.uploaded", len(rows), len(content))
    assert whole.sha256 == sent.model_extra["sha256"] and whole.method == rows[0].method
    assert {(event.company, event.entity, event.correlation) for event in told} == {("acme", sent.id, sent.id)}
    assert "".join(event.text for event in told if event.type == "file.part").encode() == content
    (there,) = whole.ranges
    assert there.stop - there.start == len(told) - 1


def test_a_file_is_refused_at_its_first_wrong_line_and_the_lines_before_are_read_once() -> None:
    read = []
    with pytest.raises(FileRefused, match="line 2"):
        for row in taught([GOOD.encode(), b"7\n", b"8\n"]):
            read.append(row.line)
    assert read == [1] and next(taught([line(pair()).encode()])).method == DPO
    draft = written.FileDraft(company="acme", file="file-1", name="", now=1)
    again = [list(written.of_line(draft, next(taught([line(pair()).encode()])))) for _ in range(2)]
    assert again[0] == again[1], "the same line of the same file has the same ids"


async def test_the_api_describes_the_door_as_it_is(api: Any) -> None:
    described = (await api.ask("GET", "/openapi.json")).json()
    paths = {path: set(of) for path, of in described["paths"].items() if path.startswith(("/v1/files", "/v1/fine"))}
    assert paths == {
        "/v1/files": {"get", "post"},
        "/v1/files/{file_id}": {"get", "delete"},
        "/v1/files/{file_id}/content": {"get"},
        "/v1/fine_tuning/jobs": {"get", "post"},
        "/v1/fine_tuning/jobs/{job_id}": {"get"},
        "/v1/fine_tuning/jobs/{job_id}/cancel": {"post"},
        "/v1/fine_tuning/jobs/{job_id}/events": {"get"},
        "/v1/fine_tuning/jobs/{job_id}/checkpoints": {"get"},
    }
    (kind, form), *more = described["paths"]["/v1/files"]["post"]["requestBody"]["content"].items()
    assert (kind, form["schema"]["required"], more) == ("multipart/form-data", ["file", "purpose"], [])
