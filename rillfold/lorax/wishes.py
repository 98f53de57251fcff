"""What a caller may wish of an agent, and how the outcome is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gpu_workers.serve.port import Answer, Outcome, Question
from rillfold.lorax.errors import WishRefused
from schemas.company import Message

Json = dict[str, Any]


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question to one role, with the options that a question of the engine has."""

    agent_role: str
    prompt: str
    system: str | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    stop: str | tuple[str, ...] = ()

    def question(self, id_: str) -> Question:
        before = () if self.system is None else (Message(role="system", content=self.system),)
        return Question(
            id=id_,
            messages=(*before, Message(role="user", content=self.prompt)),
            adapter=self.agent_role,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else self.stop,
        )


def wish_of(given: Mapping[str, Any]) -> Wish:
    """Raises `WishRefused` where it can be told without the engine that nobody could answer it."""
    if not isinstance(given, Mapping):
        raise _refused(f"{given!r:.80} is no mapping")
    try:
        wish = msgspec.convert(dict(given), Wish)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise _refused(str(error)) from error
    if (why := wish.question("").unfit()) is not None:
        raise _refused(why)
    return wish


def wishes_of(given: Sequence[Mapping[str, Any]]) -> list[Wish]:
    """All of them, or `WishRefused`, which says the place of the one that is wrong."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise _refused(f"{given!r:.80} is no list of requests")
    wishes = []
    for place, each in enumerate(given):
        try:
            wishes.append(wish_of(each))
        except WishRefused as error:
            raise WishRefused(f"request {place} of the list: {error}") from error
    return wishes


def _refused(why: str) -> WishRefused:
    options = ", ".join(Wish.__struct_fields__)
    return WishRefused(f"this request cannot be asked: {why}. A request has {options}.")


def told(wish: Wish, outcome: Outcome, seconds: float) -> Json:
    about: Json = {"agent_role": wish.agent_role, "latency_ms": round(seconds * 1000, 3)}
    if not isinstance(outcome, Answer):
        return about | {"error": {"reason": outcome.reason, "detail": outcome.detail, "again": outcome.again}}
    return about | {
        "text": outcome.text,
        "adapter": None if outcome.adapter is None else str(outcome.adapter),
        "finish_reason": outcome.finish_reason,
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "completion_tokens": outcome.completion_tokens,
    }
