"""What is made how often, and how the mistakes of one iteration change that for the next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from processors.synthetic.making import MadeKind

Name = TypeVar("Name", bound=str)

START: Mapping[MadeKind, float] = {
    "single": 0.4,
    "parallel": 0.12,
    "chained": 0.13,
    "irrelevant": 0.23,
    "missing": 0.12,
}
BOOST = 4.0
"""What all mistakes are about is made five times as often, beside the rest."""
LEAST = 0.04
"""The share of a kind or a tool never falls below it: what is not repeated is forgotten."""
FEWEST = 16
COOLEST, HOTTEST, STEP = 0.2, 1.0, 0.15
OF_WORDING = ("missing call", "unwanted call", "wrong tool", "other words", "extra words")
"""Mistakes of who has not understood what is wanted: the next requests are said in more ways. The others are mistakes
of who has not copied what was said: the next are plainer."""


class Slip(NamedTuple):
    """One answer that was not right."""

    kind: MadeKind
    tools: tuple[str, ...]
    mistake: str


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of one, and how many examples are made by them."""

    kinds: Mapping[MadeKind, float]
    tools: Mapping[str, float]
    temperature: float
    """0: the plainest words; 1: all that there are."""
    examples: int

    def __str__(self) -> str:
        shares = [f"{name} {share:.0%}" for part in (self.kinds, self.tools) for name, share in part.items()]
        return f"{self.examples} examples: {', '.join(shares)}; temperature {self.temperature:.2f}"


def first_mix(tools: Sequence[str], examples: int, temperature: float) -> Mix:
    shares = {name: 1 / len(tools) for name in tools}
    return Mix(kinds=dict(START), tools=shares, temperature=temperature, examples=examples)


def next_mix(mix: Mix, errors: Sequence[Slip], asked: int) -> Mix:
    """More of what failed, as many examples as the share of mistakes lets expect, and other words. `asked`: cases that
    the errors are of. Without errors, the same mix."""
    if not errors:
        return mix
    worded = sum(each.mistake in OF_WORDING for each in errors)
    warmer = STEP if 2 * worded > len(errors) else -STEP
    return Mix(
        kinds=_shifted(mix.kinds, Counter(each.kind for each in errors)),
        tools=_shifted(mix.tools, Counter(tool for each in errors for tool in each.tools)),
        temperature=round(min(HOTTEST, max(COOLEST, mix.temperature + warmer)), 2),
        examples=max(FEWEST, mix.examples // 2, round(mix.examples * min(1.0, 2 * len(errors) / max(1, asked)))),
    )


def _shifted(shares: Mapping[Name, float], failed: Mapping[Name, int]) -> dict[Name, float]:
    """Each share grows by its part of the failures; then all are one again, and none is nearly nothing."""
    every = sum(failed.get(name, 0) for name in shares)
    if not every:
        return dict(shares)
    grown = {name: share * (1 + BOOST * failed.get(name, 0) / every) for name, share in shares.items()}
    whole = sum(grown.values())
    floor = min(LEAST, 1 / len(grown))
    kept = {name: max(floor, share / whole) if shares[name] else 0.0 for name, share in grown.items()}
    return {name: share / sum(kept.values()) for name, share in kept.items()}
