"""The port to an inference engine. Nothing here knows torch: HTTP and the consumer see only this."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from math import isnan
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from gpu_workers.refused import BadQuestion
from gpu_workers.serve.seen import Seen
from projections.rollouts import Rollout
from schemas.adapters import company_of
from schemas.company import Message, ToolUse

MAX_TEMPERATURE = 100.0
MAX_LOGPROBS = 20
MAX_CHANCES = 40_000
"""Told of one answer: max_tokens times one more than logprobs."""
MAX_STOPS, STOP_LETTERS = 16, 200
PRIORITIES = 100
"""On either side of 0."""
VERSION_DIGITS = 18
_readings = itertools.count(1)
DETAIL = 1_000
"""Bytes of a failure's detail, which may repeat what was asked."""


class AdapterKey(NamedTuple):
    """What KV entries and lanes are keyed by: two versions of one name never share a number."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def spelled(adapter: str) -> tuple[str, int | None]:
    """A name, and its version where one is given. Whatever else follows an @ is part of a name that nobody has."""
    name, at, version = adapter.rpartition("@")
    numbered = at and version.isascii() and version.isdecimal() and len(version) <= VERSION_DIGITS
    return (name, int(version)) if numbered else (adapter, None)


class AdapterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the engine must know to serve one version of an adapter."""

    key: AdapterKey
    folder: Path | None = None
    """Where its files lie; None: in the engine's artifact store, under its hash."""
    sha256: str | None = None
    """Content hash of the artifact; checked each time that it is read, where it is known."""
    base_sha256: str | None = None
    company: str | None = None
    """Whose the artifact must be, by its own manifest; None: of anybody."""
    tools_in_prompt: bool = True
    """Whether the adapter was trained with its tools rendered in the prompt: it is served as it was trained."""
    reading: int = 0
    """Of a folder without a hash: which reading of it is meant, for its files may have changed since the last."""

    @property
    def content(self) -> Hashable:
        """What is in memory under it. Names and versions of one hash share it; another base never does."""
        if self.sha256 is not None:
            return self.sha256, self.base_sha256, self.company
        return self.key, self.folder, self.base_sha256, self.reading

    def anew(self) -> AdapterSpec:
        """To be read again, where no hash says that what was read is what it still is."""
        return self if self.sha256 is not None else msgspec.structs.replace(self, reading=next(_readings))


class MustCall(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is one well-formed call of a tool of the question: of this one, where it is named."""

    tool: str | None = None


class MustFit(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is JSON that fits a JSON Schema."""

    schema: str


def must_of(written: str | None) -> MustCall | MustFit | None:
    """As an event of the log says it: {"call": null}, {"call": a tool's name} or {"schema": a JSON Schema}."""
    if written is None:
        return None
    try:
        match msgspec.json.decode(written, type=dict[str, msgspec.Raw]):
            case {"call": tool, **more} if not more:
                return MustCall(tool=msgspec.json.decode(tool, type=str | None))
            case {"schema": schema, **more} if not more:
                return MustFit(schema=bytes(schema).decode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    raise BadQuestion(
        f'must is {written!r:.200}, and no form that is known here: {{"call": null}}, {{"call": a tool\'s name}} or '
        '{"schema": a JSON Schema}.'
    )


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`adapter` None is the base model; `version` None is the one that answers for the name."""

    id: str
    """Of the one who asks; two of them may choose the same."""
    company: str | None = None
    """Whose question it is: companies take turns, and each has its bounds. None: the operator's own."""
    messages: tuple[Message, ...]
    tools: str | None = None
    """JSON array of tool definitions."""
    adapter: str | None = None
    version: int | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: any token."""
    min_p: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    logprobs: int | None = None
    """So many of the likeliest tokens are told beside each that was said; None: no chances at all."""
    must: MustCall | MustFit | None = None
    """What form the answer is held to while it is made; None: none."""
    priority: int = 0
    """Among the questions of its company that wait; a lower one goes first. Nothing is taken from others by it."""
    within: float | None = None
    """Seconds from when it is asked; after them nobody wants the answer, and it is given up. None: it is waited for."""

    def may_ask(self) -> bool:
        """An adapter is asked by its own company, and by the operator. To others it is as if it were not there."""
        return self.adapter is None or self.company is None or company_of(self.adapter) == self.company

    def unfit(self) -> str | None:
        """Which figure cannot be used, and why. A temperature near 0 is 0; the longest answer ends with the context."""
        if self.max_tokens < 1:
            return f"max_tokens is {self.max_tokens}, and not 1 or more"
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            return f"temperature is {self.temperature}, and not from 0 to {MAX_TEMPERATURE:g}"
        if not 0 < self.top_p <= 1:
            return f"top_p is {self.top_p}, and not above 0 and up to 1"
        if not 0 <= self.min_p <= 1:
            return f"min_p is {self.min_p}, and not from 0 to 1"
        if self.top_k < 0:
            return f"top_k is {self.top_k}, and not 0 or more"
        if not -PRIORITIES <= self.priority <= PRIORITIES:
            return f"priority is {self.priority}, and not from {-PRIORITIES} to {PRIORITIES}"
        if self.within is not None and isnan(self.within):
            return "within is no number of seconds"
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            return f"logprobs is {self.logprobs}, and not from 0 to {MAX_LOGPROBS}"
        if self.logprobs is not None and (told := self.max_tokens * (1 + self.logprobs)) > MAX_CHANCES:
            return f"max_tokens x (1 + top_logprobs) is {told}, and not up to {MAX_CHANCES}: ask for less of either"
        if len(self.stop) > MAX_STOPS or not all(0 < len(text) <= STOP_LETTERS for text in self.stop):
            return f"stop has over {MAX_STOPS} texts, or one without a letter or with over {STOP_LETTERS}"
        return None


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the logarithm of its chance, before temperature and whatever narrows the choice."""

    token: bytes
    logprob: float


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was said at one place of an answer, and the likeliest there."""

    said: Chance
    likeliest: tuple[Chance, ...] = ()


class Snippet(NamedTuple):
    """Of an answer, as it is made."""

    text: str
    choices: tuple[Choice, ...] = ()
    """Those of its tokens, where they were asked for."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    text: str
    """Word for word what the model said; calls of a model that writes them otherwise stand as the log has them."""
    calls: tuple[ToolUse, ...] = ()
    """The tool calls in it, where it is nothing but well-formed ones after `content`."""
    content: str = ""
    """The text before the calls; all of it where there are none."""
    finish_reason: str
    """stop or length."""
    model: str
    adapter: AdapterKey | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt: read by an earlier question already."""
    choices: tuple[Choice, ...] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    reason: str
    detail: str
    again: bool = False
    """The same question may be answered later."""
    wait: float = 0.0
    """Seconds until then, where they are known."""


Outcome = Answer | Failure
OnSnippet = Callable[[Snippet], None]
"""Called on the caller's event loop with each new piece of the answer."""


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter in memory."""

    key: AdapterKey
    rank: int
    bytes: int
    in_use: int


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    waiting: int
    running: int
    known: int
    resident: int
    loads: int
    hits: int
    evictions: int
    pages: int = 0
    """Of the cache of keys and values; its memory, taken once."""
    pages_held: int = 0
    """By rows that run; the others are free, or remember prompts."""
    cached_tokens: int = 0
    """Of prompts, so far: read once and used again."""
    prompt_tokens: int = 0
    """So far, the cached ones among them."""
    tokens: int
    """Said so far, to everybody: who waits for an answer sees by them that the engine works."""
    capacity: int = 0
    """Adapters that have room in memory at once."""
    tiers: Mapping[str, int] = {}
    """How many adapter versions lie where, each where it is nearest to use."""


class InferenceEngine(Protocol):
    """One base model and any number of adapters. An outcome is the named adapter's or a Failure."""

    @property
    def model(self) -> str:
        """How the base model is called."""
        ...

    @property
    def base_sha256(self) -> str: ...

    def announce(self, spec: AdapterSpec) -> None:
        """The adapter may be asked for; it is read when somebody does."""
        ...

    def obey(self, rollout: Rollout) -> None:
        """From the next question on. Without a rollout, a name is answered by the newest version of it."""
        ...

    async def load(self, spec: AdapterSpec) -> None:
        """Reads it now, where there is room. From its return on, it may be asked for.

        Raises `Refused`: whoever asks for this version is told why, and older versions go on.
        """
        ...

    async def unload(self, name: str, version: int | None = None) -> None:
        """Questions already taken finish; later ones are refused. Unknown names are refused."""
        ...

    def alive(self) -> bool:
        """False: nothing will be answered any more."""
        ...

    def known(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        """Every version that answers by its number; a company's alone."""
        ...

    def answering(self, company: str | None = None) -> tuple[AdapterKey, ...]:
        """Of each name that answers without a number, the version that does."""
        ...

    def found(self, name: str, version: int | None) -> AdapterKey | None:
        """Which version answers; None where none would."""
        ...

    def resident(self) -> tuple[Resident, ...]: ...

    def stats(self) -> EngineStats: ...

    @property
    def seen(self) -> Seen:
        """How long questions waited, and for what."""
        ...

    async def answer(self, question: Question, on_snippet: OnSnippet | None = None) -> Outcome:
        """Another company's adapter is unknown, whichever way the question came.

        Cancelling the call takes the row out of the batch.
        """
        ...
