"""Files as OpenAI's clients send them to tune with, and the client that everybody has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import openai

from rillfold.demo import data
from schemas.company import Message


def client_of(api: Any, key: str | None = None) -> openai.AsyncOpenAI:
    """Unmodified; it asks once."""
    return openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=key or api.acme, max_retries=0)


def line(given: object) -> str:
    return json.dumps(given) + "\n"


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(question: str = "What is due?", answer: str = "Nothing.") -> dict[str, Any]:
    return {"messages": [said("user", question), said("assistant", answer)]}


def pair(question: str = "What is due?", better: str = "Nothing is.", worse: str = "No.") -> dict[str, Any]:
    return {
        "input": {"messages": [said("user", question)]},
        "preferred_output": [said("assistant", better)],
        "non_preferred_output": [said("assistant", worse)],
    }


def as_sent(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation of a log as OpenAI's clients write it."""
    found: list[dict[str, Any]] = []
    for turn, message in enumerate(messages):
        one = said(message.role, message.content)
        if message.tool_calls:
            functions = ({"name": call.name, "arguments": call.arguments} for call in message.tool_calls)
            calls = [{"id": f"c{turn}-{n}", "type": "function", "function": each} for n, each in enumerate(functions)]
            one |= {"content": message.content or None, "tool_calls": calls}
        if message.role == "tool":
            one["tool_call_id"] = f"c{turn - 1}-0"
        found.append(one)
    return found


def demo_lines(count: int, skip: int = 0) -> bytes:
    talks = data.training(data.ACME, skip + count)[skip:]
    return "".join(line({"messages": as_sent(each)}) for each in talks).encode()


def demo_pairs(count: int) -> bytes:
    return "".join(line(each) for each in _pairs(data.training(data.ACME, count))).encode()


def _pairs(talks: Iterable[Sequence[Message]]) -> Iterable[dict[str, Any]]:
    for talk in talks:
        question, answer = as_sent(talk[:2])
        yield {
            "input": {"messages": [question]},
            "preferred_output": [answer],
            "non_preferred_output": [said("assistant", "I cannot do that.")],
        }
