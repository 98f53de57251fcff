"""What an agent has said, out of a file: chats, or prompts with their outputs, to events of company-data.

A JSON array, or JSON Lines. `sales_outputs.json` is of the agent `sales`, unless the entry or whoever sends it says.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from processors.tuning.turns import BadLine, LineTurns, named, offered, shown
from rillfold.produce.rows import BOM, FileRow, Ids, Rows, agent_of, whole
from schemas.codec.json_form import event_of_fields, json_fields
from schemas.envelope import Event
from schemas.errors import Stop
from schemas.rejected import Unusable

MOST_BYTES = 64 << 20
"""Of an array, which is read whole. Lines have no such bound."""
ENVELOPE = frozenset({"id", "time", "company", "entity", "agent"})
CHAT = ENVELOPE | {"messages", "tools"}
SAID = ("output", "completion", "response")
"""Names of one thing."""
PROMPT = ENVELOPE | {"prompt", "tool_calls", "success", "score", *SAID}


class NotOutputs(Stop):
    """A file of something else, or with an entry that is none."""


def agent_outputs(file: Path | str, company: str, agent: str | None = None) -> list[Event]:
    """All of its entries, or NotOutputs with the first that is none: then nothing of the file is to be sent."""
    file = Path(file)
    rows = OutputRows(str(file))
    fields, ids, events = OutputFields(agent or agent_of(file.name)), Ids(file.name), list[Event]()
    for row in (*rows.feed(file.read_bytes()), *rows.close()):
        ids.read(row)
        try:
            given = {"company": company} | fields(whole(row))
            events.append(event_of_fields(given, partial(ids.last, given["company"]), time.time_ns() // 1000))
        except Unusable as error:
            where = f"line {row.line}" if row.entry is None else f"line {row.line}, entry {row.entry}"
            raise NotOutputs(f"{file}, {where}: {error.reason}: {error.detail}") from error
    return events


class OutputRows:
    """Cuts a file into its entries: those of an array, or lines."""

    def __init__(self, file: str) -> None:
        self._file, self._begun, self._array = file, b"", False
        self._lines = Rows(quoted=False)

    def feed(self, chunk: bytes) -> Iterator[FileRow]:
        if not self._array and not self._begun.strip(BOM + b" \t\r\n"):
            self._begun += chunk
            self._array = self._begun.removeprefix(BOM).lstrip().startswith(b"[")
            chunk = b"" if self._array else chunk
        if not self._array:
            yield from self._lines.feed(chunk)
            return
        self._begun += chunk
        if len(self._begun) > MOST_BYTES:
            raise NotOutputs(
                f"{self._file}: a JSON array over {MOST_BYTES} bytes. Write an object a line (JSON Lines)."
            )

    def close(self) -> Iterator[FileRow]:
        if not self._array:
            yield from self._lines.close()
            return
        text = self._begun.removeprefix(BOM)
        try:
            entries = [bytes(each) for each in msgspec.json.decode(text, type=list[msgspec.Raw])]
        except (msgspec.DecodeError, RecursionError) as error:
            raise NotOutputs(f"{self._file}: no JSON array: {error}. Nothing of it is sent.") from error
        place, line = 0, 1
        for number, entry in enumerate(entries):
            found = text.index(entry, place)
            line += text.count(b"\n", place, found)
            yield FileRow(line, entry, number)
            line += entry.count(b"\n")
            place = found + len(entry)


class OutputFields:
    """An entry's event."""

    def __init__(self, agent: str | None) -> None:
        self._agent = agent

    def __call__(self, text: bytes) -> dict[str, Any]:
        given = json_fields(text)
        try:
            told = _chat(given) if "messages" in given else _prompt(given)
            envelope = {name: given[name] for name in ENVELOPE if given.get(name) is not None}
            if "agent" not in envelope and self._agent is None:
                told_how = "whose output it is, nobody says: name the file AGENT_outputs.json, or give the agent."
                raise BadLine("no_agent", "", told_how)
        except BadLine as wrong:
            raise Unusable(wrong.reason, str(wrong)) from None
        return {"agent": self._agent} | envelope | told


def _chat(given: dict[str, Any]) -> dict[str, Any]:
    fields = named(given, "", CHAT)
    messages = LineTurns(offered(fields.get("tools"), "tools")).read(fields["messages"], "messages")
    if not any(message.role == "assistant" for message in messages):
        raise BadLine("no_answer", "messages", "no message of the assistant: there is nothing that it said.")
    return {"type": "conversation.ingested", "messages": msgspec.to_builtins(messages)}


def _prompt(given: dict[str, Any]) -> dict[str, Any]:
    fields = named(given, "", PROMPT)
    said = [name for name in SAID if name in fields]
    if len(said) > 1 or (not said and not fields.get("tool_calls")):
        told = f"one of {', '.join(SAID)} is what was said; here are {', '.join(said) or 'none, and no tool_calls'}."
        raise BadLine("no_output", "", told)
    if not isinstance(fields.get("prompt"), str) or not fields["prompt"].strip():
        raise BadLine("no_prompt", "prompt", "a text is needed: what it was asked.")
    for name, kinds in (("success", bool), ("score", (int, float, type(None)))):
        if not isinstance(fields.get(name, True if kinds is bool else None), kinds):
            raise BadLine("bad_value", name, f"{shown(fields[name])} is none of its kind.")
    turns = [{"role": "assistant", "content": fields[said[0]] if said else None, "tool_calls": _calls(fields)}]
    (answer,) = LineTurns(None).read(turns, "answer", first=1)
    return {
        "type": "agent_output.ingested",
        "prompt": fields["prompt"],
        "output": answer.content,
        "tool_calls": msgspec.to_builtins(answer.tool_calls),
        "success": fields.get("success", True),
        "score": fields.get("score"),
    }


def _calls(fields: Mapping[str, Any]) -> object:
    """As OpenAI writes them, or plain: a name and its arguments."""
    calls = fields.get("tool_calls")
    if not isinstance(calls, list):
        return calls
    return [{"type": "function", "function": it} if isinstance(it, dict) and "name" in it else it for it in calls]
