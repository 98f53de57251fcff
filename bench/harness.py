"""Runs the contestants of a benchmark in turns, so that a busy minute hits all of them, and reports medians."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

Figures = Mapping[str, float]
Contestant = Callable[[], Figures]


class Ratio(NamedTuple):
    """How many times `ours` is `peer` in one figure. The larger the better: take rates, not times."""

    figure: str
    ours: str
    peer: str


def compare(bench: str, contestants: Mapping[str, Contestant], ratios: Mapping[str, Ratio], runs: int = 5) -> None:
    report(bench, runs, *take_turns(bench, contestants, ratios, runs))


def take_turns(
    bench: str, contestants: Mapping[str, Contestant], ratios: Mapping[str, Ratio], runs: int
) -> tuple[dict[str, Figures], dict[str, float]]:
    """Each run has every contestant once and begins with the next one; a ratio is the median over the runs."""
    order = list(contestants)
    rows: list[dict[str, Figures]] = []
    for run in range(runs):
        start = run % len(order)
        rows.append({name: contestants[name]() for name in order[start:] + order[:start]})
        print(f"{bench}: run {run + 1} of {runs}", file=sys.stderr)
    results: dict[str, Figures] = {
        name: {figure: median(row[name][figure] for row in rows) for figure in rows[0][name]} for name in order
    }
    quotients = {
        key: median(row[ratio.ours][ratio.figure] / row[ratio.peer][ratio.figure] for row in rows)
        for key, ratio in ratios.items()
    }
    return results, quotients


def report(bench: str, runs: int, results: Mapping[str, Figures], ratios: Mapping[str, float]) -> None:
    """One JSON object with --json, else lines for people."""
    if "--json" in sys.argv:
        print(json.dumps({"bench": bench, "runs": runs, "results": results, "ratios": ratios, "machine": machine()}))
        return
    print(f"{bench}: medians of {runs} runs on {machine()}")
    for name, figures in results.items():
        print(f"  {name:48}" + "  ".join(f"{figure} {value:,.6g}" for figure, value in figures.items()))
    for key, value in ratios.items():
        print(f"  ratio to {key:35} {value:.2f}")


def machine() -> str:
    """What the figures were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0] if models else platform.machine()}, Python {platform.python_version()}"
