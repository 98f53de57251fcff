"""Chats with a base and its exported adapters through llama.cpp: OpenAI's form in and out, prompts as serving has them.

llama.cpp renders and counts; what an answer means is read by the one parser that serving, evaluation and jobs have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from gpu_workers.errors import LlamaCppFailed, NotForLlamaCpp
from gpu_workers.export.llama_server import LlamaServer, LlamaSetup
from processors.answers import BARE, CALL, TAGGED, CallForm, ToolCalls, body, parse
from schemas.company import Message, ToolUse

Said = Mapping[str, Any]
"""A message, or a tool, as OpenAI writes it."""


class Completed(NamedTuple):
    text: str
    tokens: list[int]
    whole: bool
    """It ended by itself, and was not cut."""


class LlamaChat:
    """One server with a base and all of its adapters; each question names one of them, or none."""

    def __init__(self, setup: LlamaSetup, adapters: Sequence[str]) -> None:
        """`adapters`: what those of the setup are called, in its order."""
        self.server = LlamaServer(setup)
        self._names = tuple(adapters)
        self._started: int | None = None
        self._triggers: list[list[int]] = []
        self._form: CallForm = TAGGED

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers. Whoever asks one that was killed starts it again."""
        self.server.start()
        if self._started != self.server.pid:
            self._learn()
            self._started = self.server.pid

    def stop(self) -> None:
        self.server.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def chat(
        self,
        messages: Sequence[Said],
        tools: Sequence[Said] | None = None,
        *,
        adapter: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
    ) -> dict[str, Any]:
        """An OpenAI chat completion, by this adapter, or by the base."""
        prompt = self.prompt(messages, tools)
        done = self.complete(prompt, adapter=adapter, max_tokens=max_tokens, temperature=temperature)
        meant = parse(done.text, self._form)
        message: dict[str, Any] = {"role": "assistant", "content": done.text}
        if isinstance(meant, ToolCalls):
            calls = [_called(number, call) for number, call in enumerate(meant.calls)]
            message |= {"content": meant.text or None, "tool_calls": calls}
        reason = "length" if not done.whole else "tool_calls" if isinstance(meant, ToolCalls) else "stop"
        counts = {"prompt_tokens": len(prompt), "completion_tokens": len(done.tokens)}
        return {
            "object": "chat.completion",
            "model": adapter or "base",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": counts | {"total_tokens": sum(counts.values())},
        }

    def prompt(self, messages: Sequence[Said], tools: Sequence[Said] | None = None) -> list[int]:
        """The tokens that a model reads, without thinking, as serving has them."""
        self.start()
        asked: dict[str, Any] = {"messages": [self._plain(each) for each in messages]}
        if tools:
            asked["tools"] = [{"type": "function", "function": each.get("function", each)} for each in tools]
        text = self.server.ask("POST", "/apply-template", asked | {"chat_template_kwargs": {"enable_thinking": False}})[
            "prompt"
        ]
        told = {"content": text, "add_special": False, "parse_special": True}
        return list(self.server.ask("POST", "/tokenize", told)["tokens"])

    def complete(
        self, prompt: Sequence[int], *, adapter: str | None = None, max_tokens: int = 256, temperature: float = 0.0
    ) -> Completed:
        """Goes on from these tokens."""
        self.start()
        which = self._which(adapter, prompt)
        scales = [{"id": i, "scale": float(i == which)} for i in range(len(self._names))]
        answer = self.server.ask(
            "POST",
            "/completion",
            {
                "prompt": list(prompt),
                "n_predict": max_tokens,
                "temperature": temperature,
                "return_tokens": True,
                # What it remembers of a prompt, it remembers of whichever adapter read it.
                "cache_prompt": not self._names,
                "lora": scales,
            },
        )
        return Completed(answer["content"], list(answer["tokens"]), answer["stop_type"] != "limit")

    def _learn(self) -> None:
        """What this server says of itself: its adapters in their order, and how its template writes calls."""
        loaded = self.server.ask("GET", "/lora-adapters")
        if [Path(each["path"]) for each in loaded] != list(self.server.setup.adapters):
            raise LlamaCppFailed(f"llama.cpp loaded {loaded!s:.300}, and was given other adapters.")
        self._triggers = [list(each.get("alora_invocation_tokens", ())) for each in loaded]
        for file, trigger in zip(self.server.setup.adapters, self._triggers, strict=True):
            if not trigger and _is_activated(file):
                raise LlamaCppFailed(
                    f"{file} acts from its invocation on, and this llama.cpp would apply it to all: it is too old. "
                    "Take one of this year."
                )
        template = self.server.ask("GET", "/props").get("chat_template", "")
        self._form = BARE if CALL not in template and f'"{BARE.key}"' in template else TAGGED

    def _which(self, adapter: str | None, prompt: Sequence[int]) -> int | None:
        if adapter is None:
            return None
        if adapter not in self._names:
            known = ", ".join(self._names) or "none"
            raise NotForLlamaCpp(f"No adapter {adapter!r} was loaded; known: {known}. Give it when the client is made.")
        which = self._names.index(adapter)
        if (trigger := self._triggers[which]) and not _holds(prompt, trigger):
            raise NotForLlamaCpp(
                f"adapter {adapter} acts from its invocation on, and the prompt does not hold it: llama.cpp would let "
                "the base answer. Ask it as it was trained."
            )
        return which

    def _plain(self, message: Said) -> dict[str, Any]:
        """Calls are written here, as they were trained."""
        content = message.get("content") or ""
        if calls := message.get("tool_calls"):
            uses = tuple(ToolUse(name=it["function"]["name"], arguments=it["function"]["arguments"]) for it in calls)
            content = body(Message(role="assistant", content=content, tool_calls=uses), self._form)
        return {"role": message["role"], "content": content}


def _called(number: int, call: ToolUse) -> dict[str, Any]:
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(json.loads(call.arguments), ensure_ascii=False)},
    }


def _holds(prompt: Sequence[int], trigger: Sequence[int]) -> bool:
    return any(list(prompt[i : i + len(trigger)]) == list(trigger) for i in range(len(prompt) - len(trigger) + 1))


def _is_activated(file: Path) -> bool:
    from gguf import GGUFReader, Keys  # only where a server takes a file for a plain one

    return Keys.Adapter.ALORA_INVOCATION_TOKENS in GGUFReader(file).fields
