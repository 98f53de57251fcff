"""Part 3: a training request per company, and one adapter each: the offsets that made it, and the gate's verdict."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from projections.training_runs import ENDED
from rillfold.demo.data import COMPANIES, RECIPES, DemoCompany
from rillfold.demo.stage import NotAsTold, Stage

BEFORE_BELOW, AFTER_AT_LEAST = 0.1, 0.95
OTHERS = {"irrelevance": "requests that need no tool", "foreign_tools": "tools of others, in the prompt"}
"""What the gate looks at beside the company's own requests."""


async def tell(stage: Stage) -> None:
    with stage.narrator.live("waiting for the training worker"):
        await asyncio.to_thread(stage.crew.until_ready, ("train",))
    for company in COMPANIES:
        began = time.monotonic()
        started = await stage.client.train(company.id, settings=RECIPES[company.id])
        with stage.narrator.live(f"training {started['adapter']}") as show:
            run = await _ended(stage, company, started["run"], show)
        stage.figures[f"seconds to train and measure {company.id}"] = f"{time.monotonic() - began:.0f}"
        if run["status"] != "completed":
            raise NotAsTold(f"training {company.id} ended as {run['status']}: {run['reason']} {run['detail']}")
        await _ready(stage, company, run["sha256"])


async def _ended(stage: Stage, company: DemoCompany, run: str, show: Callable[[str], None]) -> dict[str, Any]:
    """However slow the machine: waited for is each next step, and not the end."""
    row: dict[str, Any] = {}
    phase, since = "", 0.0
    while row.get("status") not in ENDED:
        row = await stage.until(f"the next step of {company.id}", partial(_moved, stage, company, run, row), every=1.0)
        if row["phase"] != phase:
            phase, since = row["phase"], time.monotonic()
        show(_progress(row, time.monotonic() - since))
    return row


def _progress(row: dict[str, Any], seconds: float) -> str:
    """How far a run is, `seconds` after its phase was first seen."""
    loss = "" if row["loss"] is None else f", loss {row['loss']:.3f}"
    left = row["seconds_left"]
    if left is None and row["step"]:
        left = seconds / row["step"] * (row["steps"] - row["step"])
    eta = "" if left is None else f", {left:.0f} s left"
    return f"{row['phase'] or row['status']} {row['step']}/{row['steps']}{loss}{eta}"


async def _moved(stage: Stage, company: DemoCompany, run: str, before: dict[str, Any]) -> dict[str, Any] | None:
    rows = await stage.client.rows("training_runs", company_id=company.id)
    row = next((row["row"] for row in rows["rows"] if row["row"]["run"] == run), None)
    return row if row != before else None


async def _ready(stage: Stage, company: DemoCompany, sha256: str) -> None:
    async def look() -> dict[str, Any] | None:
        found = (await stage.client.adapters(company.id))["adapters"]
        return next((each for each in found if each["sha256"] == sha256), None)

    adapter = await stage.until(f"adapter.ready of {company.id}", look)
    stage.adapters[company.id] = adapter
    measured = adapter["evaluation"]
    stage.figures[f"exact calls of {company.id}, before → after"] = (
        f"{measured['before']:.2f} → {measured['after']:.2f}"
    )
    stage.expect(
        measured["before"] < BEFORE_BELOW,
        f"the base model got {measured['before']:.2f} of {measured['examples']} held-out requests exactly right",
    )
    stage.expect(
        measured["after"] >= AFTER_AT_LEAST,
        f"{adapter['adapter']} v{adapter['version']} gets {measured['after']:.2f} of them right; values never trained",
    )
    _judged(stage, adapter)
    ranges = ", ".join(f"{r['topic']}/{r['partition']} [{r['start']}, {r['stop']})" for r in adapter["ranges"])
    stage.say(f"made from {ranges}")
    stage.say(f"bytes sha256 {sha256[:16]}…, dataset {adapter['manifest'][:16]}…")


def _judged(stage: Stage, adapter: dict[str, Any]) -> None:
    """What it does with requests that are not its company's, beside the base model, and what the gate says of all."""
    suites = json.loads(adapter["figures"])["suites"]
    for name, what in OTHERS.items():
        suite = suites[name]
        stage.say(f"{what}: right in {suite['served']:.2f} → {suite['share']:.2f} of {suite['cases']}")
    who = f"{adapter['adapter']} v{adapter['version']}"
    stage.expect(adapter["promoted"], f"{who} is promoted, as {adapter['verdict']}: {adapter['verdict_detail']}")
