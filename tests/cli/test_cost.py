"""`rillfold cost compare`: what is measured, what follows from it and says so, and euros as prices times figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rillfold.cli.operate import cost
from rillfold.lorax.measure import Reading
from rillfold.lorax.price import GIB, Prices, bills
from tests.support.pages import surroundings

SPEED = {"tokens_per_s": 100.0, "tokens_per_cpu_s": 50.0}


def reading(agents: int, gib: float) -> Reading:
    return Reading(agents=agents, bytes=round(gib * GIB), **SPEED)


def test_what_was_not_measured_lies_on_the_line_and_says_so() -> None:
    engine = [reading(1, 10.25), reading(100, 35.0)]
    models = [reading(1, 10.0), reading(2, 20.0), reading(4, 40.0)]
    told = {(bill.agents, bill.way): bill for bill in bills(engine, models, 100, Prices(gib_hour=0.01))}
    assert [key for key, bill in told.items() if not bill.measured] == [
        (2, "engine"), (4, "engine"), (100, "models"),
    ]  # fmt: skip
    assert told[2, "engine"].bytes == 10.5 * GIB and told[100, "models"].bytes == 1000 * GIB
    assert told[100, "models"].euros_memory_hour == 10.0 and told[100, "engine"].euros_memory_hour == 0.35
    # 10 euros an hour, 100 tokens a second: 360,000 tokens an hour.
    assert told[100, "models"].euros_million_tokens == pytest.approx(10 / 0.36, abs=1e-3)
    # 72 of 80 GiB hold 7 models of 10 GiB: 15 GPUs for 100; the engine has room on one.
    assert (told[100, "models"].gpus, told[100, "engine"].gpus) == (15, 1)
    assert told[100, "models"].euros_gpu_hour == 15 * 2.5


def test_what_has_no_room_on_a_gpu_is_no_bargain() -> None:
    engine, models = bills([reading(1, 90.0)], [reading(1, 90.0)], 2, Prices())[-2:]
    assert (engine.gpus, models.gpus) == (0, 0)


@pytest.mark.timeout(600)
def test_a_comparison_on_this_machine(tiny_base: Path) -> None:
    environment = surroundings(
        RILLFOLD_BASE_MODEL=str(tiny_base), RILLFOLD_DATA_DIR=str(tiny_base.parent / "data"), RILLFOLD_SERVE_THREADS="1"
    )
    options = ["--agents", "6", "--models", "2", "--tokens", "2", "--gib-hour", "0.5", "--json"]
    line = [sys.executable, "-m", "rillfold", "cost", "compare", *options]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    measured = {(bill["agents"], bill["way"]): bill["measured"] for bill in answer["bills"]}
    assert measured == {
        (1, "engine"): True, (1, "models"): True, (2, "engine"): True, (2, "models"): True,
        (6, "engine"): True, (6, "models"): False,
    }  # fmt: skip
    for bill in answer["bills"]:
        assert bill["bytes"] > 0 and bill["tokens_per_s"] > 0 and bill["tokens_per_cpu_s"] > 0
        assert bill["euros_memory_hour"] == pytest.approx(bill["bytes"] / GIB * 0.5, abs=1e-6)
    assert answer["prices"]["gib_hour"] == 0.5
    # 2 layers x 7 modules of rank 16 in float32, hidden 64 (q 64, k and v 32, gate, up and down 192).
    wide = (64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 192)
    assert answer["adapter_bytes"] == 2 * wide * 16 * 4
    assert any("rank 16" in line for line in answer["assumptions"])


@pytest.mark.parametrize("price", ["-1", "nan", "0"])
def test_a_price_that_is_none_is_named(price: str) -> None:
    done = CliRunner().invoke(cost.cost, ["compare", "--gpu-hour", price])
    assert done.exit_code == 2 and "--gpu-hour" in done.output
