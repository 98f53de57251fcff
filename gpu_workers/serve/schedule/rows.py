"""A question on its way through the engine, and what a step takes of it. No tensor is seen here."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from gpu_workers.serve.schedule.pages import PUBLIC, Label

Adapter = TypeVar("Adapter")


class AnswerForm(Protocol):
    """What holds an answer to its form, token by token."""

    begins: tuple[int, ...]

    def allowed(self) -> Any: ...
    def take(self, token: int) -> None: ...
    def forced(self) -> list[int]: ...


@dataclass(eq=False)
class EngineRow(Generic[Adapter]):
    """One question on its way through the engine. Its adapter is fixed when it is taken in."""

    ticket: int
    prompt: list[int]
    adapter: Adapter | None
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    logprobs: int | None = None
    owner: str | None = None
    """Whose question it is: owners take turns, and pages are an owner's own."""
    priority: int = 0
    """Among those of its owner that wait; a lower one goes first."""
    mark: Hashable = None
    """Identity of the adapter's content, which KV under it is found by; None: it is not found again."""
    active_from: int = 0
    """The base model alone reads the tokens before this one."""
    public: int = 0
    """So many tokens of the prompt's beginning are no secret: their KV is shared by all owners."""
    form: AnswerForm | None = None
    """What the answer is held to while it is made."""
    said: list[int] = field(default_factory=list)
    told: int = 0
    """So many of these tokens were told already."""
    fed: int = 0
    """Tokens of prompt and answer whose KV is there."""
    pages: list[int] = field(default_factory=list)
    """Where it is, page by page."""
    cached: int = 0
    """Tokens of the prompt whose KV was there when the row was first let in."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.said)

    @property
    def final_length(self) -> int:
        return len(self.prompt) + self.limit

    @property
    def unfed(self) -> int:
        """What may be fed at once: the base model's tokens and its adapter's never are."""
        return (self.active_from if self.fed < self.active_from else self.length) - self.fed

    def tokens(self, start: int, count: int) -> list[int]:
        """Of prompt and answer."""
        asked = len(self.prompt)
        if start + count <= asked:
            return self.prompt[start : start + count]
        return self.prompt[start:] + self.said[max(0, start - asked) : start + count - asked]

    def label(self, page: int, size: int) -> Label | None:
        """What a full page of it is found by; None: by nothing, it is this row's alone."""
        start, end = page * size, (page + 1) * size
        sharer = PUBLIC if end <= self.public else self.owner
        words = array("I", self.tokens(start, size)).tobytes()
        if self.adapter is None or end <= self.active_from:
            return Label(sharer, None, words)
        if self.mark is None:
            return None
        return Label(sharer, (self.mark, max(0, self.active_from - start)), words)


@dataclass(frozen=True, slots=True)
class Feed(Generic[Adapter]):
    """These tokens of a row's prompt and answer go through the model in this step."""

    row: EngineRow[Adapter]
    start: int
    count: int
    asks: bool
    """It ends with the last one there is, so the next one is wanted."""

    @property
    def adapter(self) -> Adapter | None:
        return None if self.start < self.row.active_from else self.row.adapter

    @property
    def ids(self) -> list[int]:
        return self.row.tokens(self.start, self.count)


class StepBatch(NamedTuple, Generic[Adapter]):
    feeds: list[Feed[Adapter]]
    fresh: list[int]
    """Pages to be zeroed first. A masked position has weight 0, and 0 times what a row left there may be no number."""


@dataclass(frozen=True)
class Limits:
    """`pages` bounds the memory, page 0 included; `step` the tokens of one step; `chunk` those of prompts in a step in
    which others answer; after `turn` tokens, or more where it is long, a row gives way to other owners'."""

    rows: int = 32
    pages: int = 4_097
    step: int = 512
    chunk: int = 32
    waiting: int = 1_024
    turn: int = 256
