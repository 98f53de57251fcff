"""Runs the contestants of a benchmark in turns, so that a busy minute hits all of them, and reports medians."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

Figures = Mapping[str, float]
Contestant = Callable[[], Figures]
Turn = Mapping[str, Figures]
"""One run: the figures of each contestant that had its turn."""


class Ratio(NamedTuple):
    """How many times `ours` is `peer` in one figure, over the runs that both had."""

    figure: str
    ours: str
    peer: str

    def of(self, runs: Sequence[Turn]) -> Quotient:
        both = [run for run in runs if self.ours in run and self.peer in run]
        found = sorted(run[self.ours][self.figure] / run[self.peer][self.figure] for run in both)
        return Quotient(median(found), found[0], found[-1], self.figure, self.ours, self.peer)


class Quotient(NamedTuple):
    """The median over the runs, and how far they lie apart."""

    ratio: float
    low: float
    high: float
    figure: str
    ours: str
    peer: str


def options(about: str | None, runs: int = 5, **counts: int) -> argparse.ArgumentParser:
    """What every benchmark may be told; `report` looks for --json itself."""
    parser = argparse.ArgumentParser(description=about)
    for name, count in {"runs": runs, **counts}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--json", action="store_true")
    return parser


def compare(bench: str, contestants: Mapping[str, Contestant], ratios: Mapping[str, Ratio], runs: int = 5) -> None:
    report(bench, runs, *take_turns(bench, contestants, ratios, runs))


def take_turns(
    bench: str, contestants: Mapping[str, Contestant], ratios: Mapping[str, Ratio], runs: int
) -> tuple[dict[str, Figures], dict[str, Quotient]]:
    rows = turns(bench, contestants, runs)
    return medians(rows), {key: ratio.of(rows) for key, ratio in ratios.items()}


def turns(
    bench: str,
    contestants: Mapping[str, Contestant],
    runs: int,
    most: Mapping[str, int] | None = None,
    shuffled: bool = False,
) -> list[Turn]:
    """Each run has every contestant once and begins with the next one, or is shuffled, always alike. Slow contestants
    have so many runs at `most`, the first ones."""
    order = list(contestants)
    rows: list[Turn] = []
    for run in range(runs):
        start = run % len(order)
        places = Random(run).sample(order, len(order)) if shuffled else order[start:] + order[:start]
        rows.append({name: contestants[name]() for name in places if run < (most or {}).get(name, runs)})
        print(f"{bench}: run {run + 1} of {runs}", file=sys.stderr)
    return rows


def medians(rows: Sequence[Turn]) -> dict[str, Figures]:
    """Of every figure, over the runs that its contestant had."""
    of = {name: [row[name] for row in rows if name in row] for name in rows[0]}
    return {name: {each: median(run[each] for run in had) for each in had[0]} for name, had in of.items()}


def report(
    bench: str,
    runs: int,
    results: Mapping[str, Figures],
    ratios: Mapping[str, Quotient],
    costs: Mapping[str, float] | None = None,
    also: Mapping[str, Any] | None = None,
) -> None:
    """One JSON object with --json, which `python -m bench.figures keep` takes; else lines for people.

    `also` is whatever else the JSON has to say.
    """
    if "--json" in sys.argv:
        said: dict[str, Any] = {
            "bench": bench,
            "runs": runs,
            "machine": machine(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
        }
        said |= {
            "ratios": {key: each._asdict() for key, each in ratios.items()},
            "costs": costs or {},
            "results": results,
        }
        said |= also or {}
        print(json.dumps(said))
        return
    print(f"{bench}: medians of {runs} runs on {machine()}")
    for name, figures in results.items():
        print(f"  {name:48}" + "  ".join(f"{figure} {value:,.6g}" for figure, value in figures.items()))
    for key, each in ratios.items():
        print(f"  ratio to {key:35} {each.ratio:.2f} ({each.low:.2f} to {each.high:.2f})")
    for key, value in (costs or {}).items():
        print(f"  {key:44} {value:.2f}")


def machine() -> str:
    """What the figures were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0] if models else platform.machine()}, Python {platform.python_version()}"
