"""The one chat template, for training and for serving: messages and tools in, token ids out, answers back.

ChatML turns with Qwen3's tool blocks. A model whose own template writes plain turns otherwise is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from gpu_workers.errors import BaseModelRefused, MessageRefused, PromptDrift
from processors.answers import CALL, CALL_END
from schemas.company import ROLES, Message, ToolUse, may_speak

START, END = "<|im_start|>", "<|im_end|>"

_TOOLS_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_TOOLS_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


class Turn(NamedTuple):
    role: str
    body: str


class Sample(NamedTuple):
    """What is trained on: the prompt as inference sees it, and the answer, which alone carries loss."""

    prompt: list[int]
    answer: list[int]


def turns(messages: Sequence[Message], tools: str | None = None, default_system: str | None = None) -> list[Turn]:
    """What each turn says. Tools stand in the system turn; results of neighbouring calls share one user turn."""
    system = messages[0].content if messages and messages[0].role == "system" else default_system
    if tools:
        system = (f"{system}\n\n" if system else "") + _tool_block(tools)
    result = [] if system is None else [Turn("system", system)]
    for index, message in enumerate(messages):
        if not may_speak(message.role, index):
            raise MessageRefused(f"message {index} has role {message.role!r}; known are {ROLES}, system only first.")
        if message.role == "tool":
            response = f"<tool_response>\n{message.content}\n</tool_response>"
            if index and messages[index - 1].role == "tool":
                response = f"{result.pop().body}\n{response}"
            result.append(Turn("user", response))
        elif message.role != "system":
            result.append(Turn(message.role, body(message)))
    return result


def body(message: Message) -> str:
    """What a turn says: its text, then its tool calls."""
    calls = [f"{CALL}\n{_call_json(call)}\n{CALL_END}" for call in message.tool_calls]
    return "\n".join(([message.content] if message.content else []) + calls)


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


@dataclass(frozen=True)
class Chat:
    """The template bound to one model's tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    start: int
    end: int
    """Ends a turn: generation stops here."""
    default_system: str | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Chat:
        start, end = (_special(tokenizer, token) for token in (START, END))
        chat = cls(tokenizer, start, end, _own_system(tokenizer))
        chat._agree_with_the_model()
        return chat

    def prompt(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Everything up to where the model starts to answer."""
        return [*self.history(messages, tools), self.start, *self.encode("assistant\n")]

    def sample(self, messages: Sequence[Message], tools: str | None = None) -> Sample:
        """The last message is the answer. Raises `PromptDrift` unless history and inference prompt agree."""
        prompt = self.prompt(messages[:-1], tools)
        answer = [*self.encode(body(messages[-1])), self.end]
        whole = self.history(messages, tools)
        if whole[: len(prompt) + len(answer)] != prompt + answer:
            raise PromptDrift(f"the rendered conversation does not begin with its prompt: {messages[-1]!r}")
        return Sample(prompt, answer)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an answer, without the token that ended it."""
        said = [token for token in ids if token != self.end]
        return str(self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def bytes_of(self, token: int) -> bytes:
        """What one token says: bytes, for a letter may be cut in two. Those that no tokenizer has say nothing."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        table = _byte_of()
        plain = token not in self.tokenizer.all_special_ids and all(letter in table for letter in piece)
        return bytes(table[letter] for letter in piece) if plain else piece.encode()

    def encode(self, text: str) -> list[int]:
        """Plain text: a special token spelled out in it stays text."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    def history(self, messages: Sequence[Message], tools: str | None) -> list[int]:
        """Everything before the next turn."""
        ids: list[int] = []
        newline = self.encode("\n")
        for role, text in turns(messages, tools, self.default_system):
            # Role and body apart, as a model meets them: its own answer begins with a fresh token.
            ids += [self.start, *self.encode(f"{role}\n"), *self.encode(text), self.end, *newline]
        return ids

    def _agree_with_the_model(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            return
        question = "Is it so?"
        plain: list[Any] = [{"role": "user", "content": question}]
        theirs = str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))
        ours = render([Message(role="user", content=question)], default_system=self.default_system)
        if theirs != ours:
            raise BaseModelRefused(
                f"the model's own template writes {theirs!r}, ours {ours!r}. "
                "Training and serving it with another template than its own would spoil it."
            )


@cache
def _byte_of() -> dict[str, int]:
    """The letters by which tokenizers of bytes write them: those that can be seen stand for themselves."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


def _special(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_id, int) or token_id == tokenizer.unk_token_id:
        raise BaseModelRefused(f"the model's tokenizer has no {token}: it does not speak ChatML.")
    return token_id


def _own_system(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the model's own template puts first when nobody gives a system message."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    plain: list[Any] = [{"role": "user", "content": ""}]
    text = str(tokenizer.apply_chat_template(plain, tokenize=False))
    before, opened, rest = text.partition(f"{START}system\n")
    return rest.partition(END)[0] if opened and not before else None


def _tool_block(tools: str) -> str:
    lines = []
    for tool in json.loads(tools):
        function = tool.get("function", tool)
        known = {key: function[key] for key in ("name", "description", "parameters") if key in function}
        lines.append(_json({"type": "function", "function": known}))
    return _TOOLS_BEFORE + "\n".join(lines) + _TOOLS_AFTER


def _call_json(call: ToolUse) -> str:
    return f'{{"name": {_json(call.name)}, "arguments": {_json(json.loads(call.arguments))}}}'


def _json(value: object) -> str:
    """As Qwen3's template writes JSON: readable spaces, no escapes for what is not ASCII."""
    return json.dumps(value, ensure_ascii=False)
