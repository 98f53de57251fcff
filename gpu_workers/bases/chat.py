"""Chats as a model reads them, for training and for serving: messages and tools in, token ids out, answers back.

The model's own template where it knows tools; ours where it does not, and its plain turns are the same as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from gpu_workers.bases.templates.chatml import END, START, ChatMl, Stretch
from gpu_workers.bases.templates.chatml import render as render
from gpu_workers.bases.templates.own_template import OwnTemplate
from gpu_workers.bases.templates.sandbox import Sandbox
from gpu_workers.errors import BaseModelRefused, MessageRefused, PromptDrift
from processors.answers import CallForm
from processors.answers import body as body
from schemas.company import Message

ENDS = (END, "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
"""Tokens that end an answer wherever a model has them, whatever its files say."""
_ASKED = Message(role="user", content="Is it so?")


class Template(Protocol):
    """What a conversation looks like; whoever writes with it knows how calls are written, and what ends an answer."""

    @property
    def form(self) -> CallForm: ...

    @property
    def end(self) -> str: ...

    def write(self, messages: Sequence[Message], tools: str | None, *, asks: bool) -> list[Stretch]: ...

    def tag(self, text: str) -> list[Stretch]:
        """What stands before or behind a call, as it writes that."""


class Sample(NamedTuple):
    """What is trained on: the prompt as inference sees it, and the answer, which alone carries loss."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Chat:
    """A template bound to one model's tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    end: int
    """Ends a turn, as the template writes it."""
    ends: frozenset[int]
    """Generation stops at any of these."""
    specials: Mapping[str, int] = field(compare=False)
    marks: Mapping[int, str] = field(compare=False)
    """Tokens that anybody may write and no text is cut through, such as the tags around calls of some models."""

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, eos: int | Sequence[int] | None = None, *, older: bool = False
    ) -> Chat:
        """`eos`: what the model's generation config names. `older`: as releases before this one wrote chats, which
        knew ours alone; adapters of theirs are served as they were trained."""
        template = _template(tokenizer, older)
        specials = {each: _special(tokenizer, each) for each in _specials(tokenizer)}
        told = [eos] if isinstance(eos, int) else list(eos or ())
        own = [specials[each] for each in (template.end, str(tokenizer.eos_token), *ENDS) if each in specials]
        return cls(tokenizer, template, specials[template.end], frozenset([*own, *told]), specials, _marks(tokenizer))

    def as_older(self) -> Chat:
        """Where it is the same, this one."""
        older = Chat.of(self.tokenizer, sorted(self.ends), older=True)
        return self if older.template == self.template else older

    @property
    def form(self) -> CallForm:
        """How the model writes calls."""
        return self.template.form

    def prompt(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Everything up to where the model starts to answer."""
        return self._ids(self.template.write(messages, tools, asks=True))

    def history(self, messages: Sequence[Message], tools: str | None) -> list[int]:
        """Everything before the next turn."""
        return self._ids(self.template.write(messages, tools, asks=False))

    def sample(self, messages: Sequence[Message], tools: str | None = None) -> Sample:
        """The last message is the answer. Raises `PromptDrift` unless history and inference prompt agree."""
        prompt, whole = self.prompt(messages[:-1], tools), self.history(messages, tools)
        if whole[: len(prompt)] == prompt:
            return Sample(prompt, whole[len(prompt) : whole.index(self.end, len(prompt)) + 1])
        if messages[-2:-1] and messages[-2].role == "assistant":
            # A template may write the last of its answers otherwise than those before: this one was the last then.
            return Sample(prompt, self.sample((_ASKED, messages[-1])).answer)
        raise PromptDrift(f"the rendered conversation does not begin with its prompt: {messages[-1]!r}")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an answer, without the token that ended it."""
        said = [token for token in ids if token not in self.ends]
        return str(self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def bytes_of(self, token: int) -> bytes:
        """What one token says: bytes, for a letter may be cut in two. Those that no tokenizer has say nothing."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        table = _byte_of()
        added = token in self.marks or piece in self.specials
        plain = not added and all(letter in table for letter in piece)
        return bytes(table[letter] for letter in piece) if plain else piece.encode()

    def encode(self, text: str) -> list[int]:
        """Plain text: a special token spelled out in it stays text."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    def _ids(self, pieces: Sequence[Stretch]) -> list[int]:
        ids: list[int] = []
        for text, special in pieces:
            ids += [self.specials[text]] if special else self.encode(text)
        return ids


def _template(tokenizer: PreTrainedTokenizerBase, older: bool) -> Template:
    """The model's own where it knows tools, else ours; the other way round for what older releases trained."""
    kinds: list[Callable[[PreTrainedTokenizerBase], Template]] = [_own, _ours]
    refused = []
    for kind in reversed(kinds) if older else kinds:
        try:
            return kind(tokenizer)
        except BaseModelRefused as error:
            refused.append(str(error))
    raise BaseModelRefused(" And ours: ".join(refused if not older else reversed(refused)))


def _own(tokenizer: PreTrainedTokenizerBase) -> Template:
    if (text := _text_of(tokenizer)) is None:
        raise BaseModelRefused("the model has no chat template of its own.")
    return OwnTemplate(text, _words(tokenizer), sorted(_specials(tokenizer)))


def _ours(tokenizer: PreTrainedTokenizerBase) -> Template:
    for token in (START, END):
        _special(tokenizer, token)
    if (text := _text_of(tokenizer)) is None:
        return ChatMl()
    plain = _plainly(text, _words(tokenizer))
    theirs, template = plain(_ASKED.content, True), ChatMl(_own_system(plain))
    ours = render([_ASKED], default_system=template.default_system)
    if theirs != ours:
        raise BaseModelRefused(
            f"the model's own template writes {theirs!r}, ours {ours!r}. "
            "Training and serving it with another template than its own would spoil it."
        )
    return template


def _plainly(text: str, words: Mapping[str, str]) -> Callable[[str, bool], str]:
    """What a model's own template writes of one question; nothing where it cannot."""

    def written(question: str, asks: bool) -> str:
        with suppress(TemplateError, MessageRefused):
            messages = [{"role": "user", "content": question}]
            return Sandbox(text, words).render(len(question), messages=messages, add_generation_prompt=asks)
        return ""

    return written


def _own_system(plain: Callable[[str, bool], str]) -> str | None:
    """What the model's own template puts first when nobody gives a system message."""
    before, opened, rest = plain("", False).partition(f"{START}system\n")
    return rest.partition(END)[0] if opened and not before else None


def _text_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Some models have several templates by name, and one for tools among them."""
    found: Any = getattr(tokenizer, "chat_template", None)
    text = (found.get("tool_use") or found.get("default")) if isinstance(found, dict) else found
    return str(text) if text else None


def _words(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    return {name: word for name, word in tokenizer.special_tokens_map.items() if isinstance(word, str)}


def _specials(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset([*tokenizer.all_special_tokens, *(str(each) for each in added.values() if each.special)])


def _marks(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {token: str(each) for token, each in added.items() if not each.special}


@cache
def _byte_of() -> dict[str, int]:
    """The letters by which tokenizers of bytes write them: those that can be seen stand for themselves."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


def _special(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_id, int) or (token_id == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise BaseModelRefused(f"the model's tokenizer has no {token}: it does not speak ChatML.")
    return token_id
