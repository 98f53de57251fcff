"""A part of the bench: what it measures, and how it hands that back."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.harness import Figures, Quotient, Ratio, medians, turns
from bench.serve.scene import Scene


class Found(NamedTuple):
    """`costs` are figures that have no peer."""

    results: Mapping[str, Figures]
    ratios: Mapping[str, Quotient]
    costs: Mapping[str, float]


Run = Callable[[Scene, Collection[str]], Found]
"""Given the figures that are wanted."""


def together(parts: Iterable[Found]) -> Found:
    results: dict[str, Figures] = {}
    ratios: dict[str, Quotient] = {}
    costs: dict[str, float] = {}
    for part in parts:
        results |= part.results
        ratios |= part.ratios
        costs |= part.costs
    return Found(results, ratios, costs)


class Part(NamedTuple):
    """`keys` are the figures that it may be asked for one by one."""

    name: str
    keys: tuple[str, ...]
    run: Run


def beside(
    name: str,
    contestants: Mapping[str, Callable[[int], Figures]],
    ratios: Mapping[str, Ratio],
    scene: Scene,
    slow: Collection[str] = (),
    costs: Callable[[], Mapping[str, float]] = dict,
) -> Found:
    """Contestants in shuffled turns, each told which turn it is, the slow ones in fewer; then what they say."""
    counted = {who: _counted(run) for who, run in contestants.items()}
    most = dict.fromkeys(slow, scene.slow)
    runs = turns(f"serve {name}", counted, scene.turns, most, shuffled=True)
    return Found(medians(runs), {key: ratio.of(runs) for key, ratio in ratios.items()}, costs())


def _counted(run: Callable[[int], Figures]) -> Callable[[], Figures]:
    turn = iter(range(1_000))
    return lambda: run(next(turn))


def wanted(parts: Sequence[Part], only: Collection[str]) -> dict[Run, list[str]]:
    """By their names, or by names of figures; all where none is named. Parts that run together are run once."""
    names = {name for part in parts for name in (part.name, *part.keys)}
    if unknown := set(only) - names:
        raise SystemExit(f"No part {', '.join(sorted(unknown))}: take some of {', '.join(sorted(names))}.")
    chosen: dict[Run, list[str]] = {}
    for part in parts:
        if keys := [key for key in part.keys if not only or part.name in only or key in only]:
            chosen.setdefault(part.run, []).extend(keys)
    return chosen
