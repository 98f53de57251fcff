"""What a question becomes: its tokens, where its adapter begins to act, whose it is, what its answer is held to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.templates.chatml import functions
from gpu_workers.refused import BadQuestion, NotActivated, PromptTooLong
from gpu_workers.serve.admission import LETTERS_A_TOKEN as GUESSED_LETTERS
from gpu_workers.serve.engine.engine import LoraRow
from gpu_workers.serve.forms.form import Form, Forms
from gpu_workers.serve.port import AdapterSpec, MustFit, Question
from schemas.adapters import company_of

LETTERS_A_TOKEN = 32
"""No prompt in any language has so many on average: longer ones are not cut into tokens at all."""
TOKENS_A_PART = 3
"""What opens and closes a message, a call or a tool, also one without a letter."""
LONG_LETTERS = 16_000
LONG_PARTS = 64
"""A prompt above one of these is rendered and cut into tokens beside the event loop, which has others to serve."""


@dataclass(frozen=True)
class Base:
    """The model that all adapters stand on."""

    name: str
    sha256: str
    context: int
    public: tuple[tuple[int, ...], ...] = ()
    """Beginnings of prompts that the operator declares to be no secret."""
    older_sha256: str = ""
    """What older releases knew it by: adapters that name it so are served as those wrote chats."""

    def is_older(self, spec: AdapterSpec | None) -> bool:
        return spec is not None and spec.base_sha256 == self.older_sha256 != self.sha256


class RowMaker:
    def __init__(self, chat: Chat, base: Base) -> None:
        self._chat, self._older, self._base = chat, chat.as_older(), base
        self._forms = Forms.of(chat)
        self._older_forms = self._forms if self._older is chat else Forms.of(self._older)

    def chat(self, spec: AdapterSpec | None) -> Chat:
        """As it was trained, so it is asked."""
        return self._older if self._base.is_older(spec) else self._chat

    def row(self, ticket: int, question: Question, spec: AdapterSpec | None, weights: LoraWeights | None) -> LoraRow:
        """Whatever template, parser, tokenizer and grammar raise is the question's own failure."""
        prompt = self._prompt(question, spec)
        return LoraRow(
            ticket,
            prompt,
            weights,
            min(question.max_tokens, self._base.context - len(prompt)),
            temperature=question.temperature,
            top_p=question.top_p,
            top_k=question.top_k,
            min_p=question.min_p,
            seed=question.seed,
            logprobs=question.logprobs,
            owner=owner_of(question),
            priority=question.priority,
            mark=weights.content if weights else None,
            active_from=self._active_from(prompt, spec, weights),
            public=max((_common(prompt, declared) for declared in self._base.public), default=0),
            form=self._form(question, spec),
        )

    def _form(self, question: Question, spec: AdapterSpec | None) -> Form | None:
        must = question.must
        forms = self._older_forms if self._base.is_older(spec) else self._forms
        return forms.for_(must, question.tools, owner_of(question)) if must is not None else None

    def _prompt(self, question: Question, spec: AdapterSpec | None) -> list[int]:
        """An adapter is asked as it was trained: without tools, or with them in the order of its data."""
        model, context = self._base.name, self._base.context
        if (parts := _parts(question)) * TOKENS_A_PART >= context:
            raise PromptTooLong(f"{parts} messages, calls and tools; {model} reads {context} tokens.")
        if (count := letters(question)) > context * LETTERS_A_TOKEN:
            raise PromptTooLong(f"the prompt has {count} letters; {model} reads {context} tokens.")
        try:
            prompt = self.chat(spec).prompt(question.messages, _tools(question, spec))
        except Exception as error:
            why = f"messages or tools cannot be rendered: {type(error).__name__}: {error}"
            raise BadQuestion(why) from error
        if len(prompt) >= context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens; {model} reads {context}.")
        return prompt

    def _active_from(self, prompt: list[int], spec: AdapterSpec | None, weights: LoraWeights | None) -> int:
        """Where the last of its triggers begins. Without one it would be the base model's answer under its name."""
        trigger = list(weights.activation or ()) if weights else []
        if not trigger:
            return 0
        for start in range(len(prompt) - len(trigger), -1, -1):
            if prompt[start : start + len(trigger)] == trigger:
                return start
        named = spec.key if spec else "?"
        raise NotActivated(
            f"adapter {named} acts from its trigger on, {self._chat.decode(trigger)!r:.200} (tokens {trigger}), and "
            "the prompt does not hold it: write it into a message, as it was trained."
        )


def slow(question: Question) -> bool:
    """Too much work for the event loop, which has others to serve."""
    return len(question.messages) > LONG_PARTS or letters(question) > LONG_LETTERS or question.must is not None


def spent(question: Question) -> int:
    """Tokens that it costs by being read, held to its form or not, before they are counted: roughly."""
    schema = question.must.schema if isinstance(question.must, MustFit) else ""
    return (letters(question) + len(schema)) // GUESSED_LETTERS


def owner_of(question: Question) -> str | None:
    return question.company or company_of(question.adapter or "") or None


def letters(question: Question) -> int:
    said = sum(
        len(message.content) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        for message in question.messages
    )
    return said + len(question.tools or "")


def _tools(question: Question, spec: AdapterSpec | None) -> str | None:
    """In one order, whoever answers: adapters that act from the answer on share what was read of the same prompt."""
    if question.tools is None or (spec and not spec.tools_in_prompt):
        return None
    named = sorted(functions(question.tools), key=lambda tool: str(tool["function"].get("name")))
    return msgspec.json.encode(named, order="sorted").decode()


def _parts(question: Question) -> int:
    """Messages, calls and tools. Tools that are no list count for nothing here: rendering says what they are."""
    tools: list[msgspec.Raw] = []
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        tools = msgspec.json.decode(question.tools or "[]", type=list[msgspec.Raw])
    return sum(1 + len(message.tool_calls) for message in question.messages) + len(tools)


def _common(prompt: Sequence[int], declared: Sequence[int]) -> int:
    pairs = enumerate(zip(prompt, declared, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(prompt), len(declared)))
