"""A part of a bench that has many: what it measures, how it hands that back, and what it has to reach."""

import gc
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from bench.harness import Figures, Quotient, Ratio, medians, turns


class Missing(Exception):
    """That cannot be done here yet: the part is left out, by name and with the reason."""


class Found(NamedTuple):
    """`costs` are figures that have no peer."""

    results: Mapping[str, Figures]
    ratios: Mapping[str, Quotient]
    costs: Mapping[str, float]


class Turns(Protocol):
    """What the parts of a bench stand on: so many turns, fewer for slow contestants."""

    @property
    def turns(self) -> int: ...

    @property
    def slow(self) -> int: ...


Stage = TypeVar("Stage")
Run = Callable[[Stage, Collection[str]], Found]
"""Given the figures that are wanted."""


class Part(NamedTuple, Generic[Stage]):
    """`keys` are the figures that it may be asked for one by one."""

    name: str
    keys: tuple[str, ...]
    run: Run[Stage]


def together(parts: Iterable[Found]) -> Found:
    results: dict[str, Figures] = {}
    ratios: dict[str, Quotient] = {}
    costs: dict[str, float] = {}
    for part in parts:
        results |= part.results
        ratios |= part.ratios
        costs |= part.costs
    return Found(results, ratios, costs)


def beside(
    name: str,
    contestants: Mapping[str, Callable[[int], Figures]],
    ratios: Mapping[str, Ratio],
    stage: Turns,
    slow: Collection[str] = (),
    costs: Callable[[], Mapping[str, float]] = dict,
) -> Found:
    """Contestants in shuffled turns, each told which turn it is, the slow ones in fewer; then what they say."""
    counted = {who: _counted(run) for who, run in contestants.items()}
    most = dict.fromkeys(slow, stage.slow)
    runs = turns(name, counted, stage.turns, most, shuffled=True)
    return Found(medians(runs), {key: ratio.of(runs) for key, ratio in ratios.items()}, costs())


def _counted(run: Callable[[int], Figures]) -> Callable[[], Figures]:
    turn = iter(range(1_000))
    return lambda: run(next(turn))


def wanted(parts: Sequence[Part[Stage]], only: Collection[str]) -> dict[Run[Stage], list[str]]:
    """By their names, or by names of figures; all where none is named. Parts that run together are run once."""
    names = {name for part in parts for name in (part.name, *part.keys)}
    if unknown := set(only) - names:
        raise SystemExit(f"No part {', '.join(sorted(unknown))}: take some of {', '.join(sorted(names))}.")
    chosen: dict[Run[Stage], list[str]] = {}
    for part in parts:
        if keys := [key for key in part.keys if not only or part.name in only or key in only]:
            chosen.setdefault(part.run, []).extend(keys)
    return chosen


def all_of(stage: Stage, chosen: Mapping[Run[Stage], Collection[str]]) -> tuple[Found, dict[str, str]]:
    """All that was found, and what cannot be done here, with the reason."""
    found: list[Found] = []
    left_out: dict[str, str] = {}
    for run, keys in chosen.items():
        began = time.time()
        try:
            found.append(run(stage, keys))
            print(f"{', '.join(keys)}: took {time.time() - began:.0f} s", file=sys.stderr)
        except Missing as why:
            left_out |= dict.fromkeys(keys, str(why))
            print(f"{', '.join(keys)}: left out: {why}", file=sys.stderr)
        gc.collect()
    return together(found), left_out


def judged(figures: Mapping[str, float], at_least: Mapping[str, float], at_most: Mapping[str, float]) -> Iterator[str]:
    """A line for each figure that has something to reach, in the order of these tables."""
    for bounds, sign, better in ((at_least, ">=", float.__ge__), (at_most, "<=", float.__le__)):
        for key, bound in bounds.items():
            if key in figures:
                reached = better(float(figures[key]), bound)
                yield f"{'reached' if reached else 'MISSED '} {key:28} {figures[key]:8.3f} {sign} {bound:g}"
