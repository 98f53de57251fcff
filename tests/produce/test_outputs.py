"""Files of what an agent has said: each entry is an event, or is named with its place and its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rillfold.produce import outputs
from rillfold.produce.importing import with_roles
from rillfold.produce.outputs import NotOutputs, agent_outputs
from schemas.company import AgentOutputIngested, ConversationIngested, ToolUse
from schemas.rejected import Unusable

CALL = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": '{"euros": 12}'}}
CHAT = {"messages": [{"role": "user", "content": "Refund 12."}, {"role": "assistant", "tool_calls": [CALL]}]}
PROMPT = {"prompt": "Where is it?", "output": "On its way.", "success": False, "score": 0.5, "entity": "p-1"}
PLAIN = {"prompt": "Refund 12.", "tool_calls": [{"name": "refund", "arguments": '{"euros": 12}'}]}


@pytest.fixture
def read(tmp_path: Path):
    def events(text: str, name: str = "sales_outputs.json", **more: Any):
        (tmp_path / name).write_text(text)
        return agent_outputs(tmp_path / name, "acme", **more)

    return events


def lines(*entries: object) -> str:
    return "".join(json.dumps(each) + "\n" for each in entries)


@pytest.mark.parametrize("form", [lambda *it: json.dumps(it, indent=1), lines], ids=["array", "lines"])
def test_chats_and_prompts_become_events_of_the_agent_in_the_file_name(read, form) -> None:
    chat, prompt, plain = read(form(CHAT, PROMPT, PLAIN))
    refund = (ToolUse(name="refund", arguments='{"euros":12}'),)
    assert isinstance(chat, ConversationIngested) and chat.messages[1].tool_calls == refund
    assert isinstance(prompt, AgentOutputIngested) and isinstance(plain, AgentOutputIngested)
    assert (prompt.output, prompt.success, prompt.score, prompt.entity) == ("On its way.", False, 0.5, "p-1")
    assert (plain.success, plain.tool_calls) == (True, refund)
    assert {each.agent for each in (chat, prompt, plain)} == {"sales"} and chat.company == "acme"
    assert [each.id for each in read(form(CHAT, PROMPT, PLAIN))] == [chat.id, prompt.id, plain.id]


def test_an_agent_that_is_given_counts_over_the_name_and_an_entry_over_both(read) -> None:
    assert read(lines(PROMPT), agent="desk")[0].agent == "desk"
    assert read(lines(PROMPT | {"agent": "night"}), agent="desk")[0].agent == "night"
    with pytest.raises(NotOutputs, match="line 1: no_agent"):
        read(lines(PROMPT), "rows.jsonl")


BAD: dict[str, tuple[object, str]] = {
    "no object": (3, "invalid_json: not a JSON object"),
    "no output": ({"prompt": "Hi"}, "no_output"),
    "two outputs": ({"prompt": "Hi", "output": "a", "response": "b"}, "no_output: .*here are output, response"),
    "no prompt": ({"output": "Hi"}, "no_prompt"),
    "an unknown field": (PROMPT | {"grade": 1}, "unknown_field: 'grade'"),
    "success in words": (PROMPT | {"success": "yes"}, "bad_value: success: 'yes'"),
    "a score in words": (PROMPT | {"score": "high"}, "bad_value: score"),
    "arguments of no object": (PLAIN | {"tool_calls": [{"name": "a", "arguments": "[]"}]}, "bad_arguments"),
    "no messages": ({"messages": []}, "no_messages"),
    "an unknown role": ({"messages": [{"role": "boss", "content": "Go."}]}, "unknown_role"),
    "nobody answers": ({"messages": [{"role": "user", "content": "Hi"}]}, "no_answer"),
    "an agent of no word": (PROMPT | {"agent": "a" * 200}, "bad_word|wrong_type"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_entry_that_is_none_is_named_with_its_place_and_nothing_comes_of_the_file(read, name) -> None:
    entry, reason = BAD[name]
    with pytest.raises(NotOutputs, match=f"sales_outputs.json, line 2: ({reason})"):
        read(lines(PROMPT, entry))
    with pytest.raises(NotOutputs, match=f"sales_outputs.json, line 13, entry 1: ({reason})"):
        read("[\n" + json.dumps(PROMPT, indent=1).replace("{", "{\n\n\n", 1) + "\n,\n" + json.dumps(entry) + "]")


def test_a_conversation_of_a_file_of_rows_has_the_same_roles() -> None:
    said = [{"role": "developer", "content": "Be kind."}, {"role": "assistant", "content": "Hi"}]
    row = {"type": "conversation.ingested", "messages": said}
    assert [message["role"] for message in with_roles(row)["messages"]] == ["system", "assistant"]
    with pytest.raises(Unusable, match=r"messages\[1\]: the role 'boss' is none of system, developer, user"):
        with_roles(row | {"messages": [said[0], {"role": "boss", "content": "Go."}]})
    for other in (row | {"type": "text.ingested"}, row | {"messages": 3}, {"type": "conversation.ingested"}):
        assert with_roles(other) is other
    odd = row | {"messages": [3, {"role": 4}]}
    assert with_roles(odd) == odd, "what is no message at all its schema refuses"


def test_an_array_that_is_broken_or_too_large_is_refused_whole(read, monkeypatch) -> None:
    with pytest.raises(NotOutputs, match=r"sales_outputs.json: no JSON array: .*Nothing of it is sent"):
        read("[" + json.dumps(PROMPT))
    monkeypatch.setattr(outputs, "MOST_BYTES", 20)
    with pytest.raises(NotOutputs, match=r"over 20 bytes\. Write an object a line"):
        read(json.dumps([PROMPT]))
