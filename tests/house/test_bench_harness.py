"""The benchmarks' common ground: contestants take turns, medians are reported, and the JSON has the agreed shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.harness import Ratio, compare, medians, turns

CONSOLE = Path(sys.executable).with_name("rillfold")


def test_contestants_take_turns_and_medians_decide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--json"])
    order: list[str] = []
    figures = {"ours": iter([10.0, 30.0, 20.0]), "peer": iter([5.0, 5.0, 1000.0])}

    def contestant(name: str) -> dict[str, float]:
        order.append(name)
        return {"per_s": next(figures[name])}

    contestants = {name: lambda name=name: contestant(name) for name in figures}
    compare("turns", contestants, {"peer": Ratio("per_s", "ours", "peer")}, runs=3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("machine") and printed.pop("date")
    assert printed == {
        "bench": "turns",
        "runs": 3,
        "results": {"ours": {"per_s": 20.0}, "peer": {"per_s": 5.0}},
        "ratios": {
            "peer": {"ratio": 2.0, "low": 0.02, "high": 6.0, "figure": "per_s", "ours": "ours", "peer": "peer"},
        },
        "costs": {},
    }


def test_slow_contestants_run_less_often_and_ratios_are_of_shared_runs() -> None:
    figures = {"ours": iter([10.0, 30.0, 20.0]), "peer": iter([5.0, 5.0])}
    contestants = {name: lambda name=name: {"per_s": next(figures[name])} for name in figures}
    runs = turns("turns", contestants, 3, {"peer": 2}, shuffled=True)
    assert [sorted(run) for run in runs] == [["ours", "peer"], ["ours", "peer"], ["ours"]]
    assert medians(runs) == {"ours": {"per_s": 20.0}, "peer": {"per_s": 5.0}}
    assert Ratio("per_s", "ours", "peer").of(runs)[:3] == (4.0, 2.0, 6.0)


def test_an_unknown_benchmark_is_refused_with_those_there_are() -> None:
    run = subprocess.run([CONSOLE, "bench", "../setup"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Take one of" in run.stderr and "codec" in run.stderr
