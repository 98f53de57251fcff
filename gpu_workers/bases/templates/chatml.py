"""Our own template, for models whose own knows no tools: ChatML turns with Qwen3's tool blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpu_workers.errors import MessageRefused
from processors.answers import TAGGED, CallForm, body
from schemas.company import ROLES, Message, may_speak

START, END = "<|im_start|>", "<|im_end|>"

TOOLS_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
TOOLS_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


class Turn(NamedTuple):
    role: str
    body: str


class Stretch(NamedTuple):
    """Of a conversation as a template writes it."""

    text: str
    special: bool = False
    """One of the model's special tokens; what people wrote is never one, whatever it spells."""


@dataclass(frozen=True)
class ChatMl:
    """A template to write with."""

    default_system: str | None = None
    form: CallForm = TAGGED
    end: str = END

    def write(self, messages: Sequence[Message], tools: str | None, *, asks: bool) -> list[Stretch]:
        """`asks`: up to where the model starts to answer; else everything that was said."""
        pieces: list[Stretch] = []
        for role, text in turns(messages, tools, self.default_system):
            # Role and body apart, as a model meets them: its own answer begins with a fresh token.
            pieces += [Stretch(START, True), Stretch(f"{role}\n"), Stretch(text), Stretch(END, True), Stretch("\n")]
        return [*pieces, Stretch(START, True), Stretch("assistant\n")] if asks else pieces

    def tag(self, text: str) -> list[Stretch]:
        return [Stretch(text)]


def turns(messages: Sequence[Message], tools: str | None = None, default_system: str | None = None) -> list[Turn]:
    """What each turn says. Tools stand in the system turn; results of neighbouring calls share one user turn."""
    must_speak_in_turn(messages)
    system = messages[0].content if messages and messages[0].role == "system" else default_system
    if tools:
        system = (f"{system}\n\n" if system else "") + _tool_block(tools)
    result = [] if system is None else [Turn("system", system)]
    for index, message in enumerate(messages):
        if message.role == "tool":
            response = f"<tool_response>\n{message.content}\n</tool_response>"
            if index and messages[index - 1].role == "tool":
                response = f"{result.pop().body}\n{response}"
            result.append(Turn("user", response))
        elif message.role != "system":
            result.append(Turn(message.role, body(message)))
    return result


def must_speak_in_turn(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        if not may_speak(message.role, index):
            raise MessageRefused(f"message {index} has role {message.role!r}; known are {ROLES}, system only first.")


def render(
    messages: Sequence[Message],
    tools: str | None = None,
    *,
    default_system: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt as people read it. Models get `Chat.prompt`, where no text can pose as a turn's border."""
    said = "".join(f"{START}{role}\n{text}{END}\n" for role, text in turns(messages, tools, default_system))
    return said + (f"{START}assistant\n" if add_generation_prompt else "")


def functions(tools: str) -> list[dict[str, Any]]:
    """Tools in either form that people write them in, as templates read them."""
    found = []
    for tool in json.loads(tools):
        function = tool.get("function", tool)
        known = {key: function[key] for key in ("name", "description", "parameters") if key in function}
        found.append({"type": "function", "function": known})
    return found


def _tool_block(tools: str) -> str:
    lines = [json.dumps(tool, ensure_ascii=False) for tool in functions(tools)]
    return TOOLS_BEFORE + "\n".join(lines) + TOOLS_AFTER
