"""A fifth of the demo's successes is spoilt, and people and tools say so: training with their words, and without."""

from collections.abc import Collection
from typing import Any

import msgspec

from bench.part import Found, Part
from bench.train.scene import Scene, child
from bench.train.spoilt import conversation, told
from gpu_workers.train.lines import to_bytes
from processors.dataset.selection import Selection
from processors.training.settings import TrainSettings
from rillfold.demo import data

SPOILT = ("issue_refund", "amount")
RECIPE = TrainSettings(dropout=0.0)
HOW = {"by outcomes and corrections": Selection(), "by everything": Selection(outcomes=False)}


def run(scene: Scene, _: Collection[str]) -> Found:
    results = {f"outcomes: {how}": _learned(scene, how, select) for how, select in HOW.items()}
    good, all_ = (each["after"] for each in results.values())
    return Found(results, {}, {"outcomes": good, "outcomes, by everything": all_, "outcomes gain": good - all_})


def _learned(scene: Scene, how: str, select: Selection) -> dict[str, float]:
    requests = enumerate(data.held_out(data.ACME), data.TALKS)
    measured = [conversation(data.ACME, n, data.conversation(data.ACME, request)[:2]) for n, request in requests]
    build: dict[str, Any] = {"select": select}
    rows = scene.written(how, [*told(data.ACME, data.TALKS, *SPOILT), *measured], **build)
    spec = scene.spec(how, "lora", msgspec.structs.replace(RECIPE, select=select), rows)
    said = child("ran", to_bytes(spec).decode(), scene.threads)
    return {each: float(said[each]) for each in ("before", "after", "cpu_s")}


PARTS = [Part("outcomes", ("outcomes", "outcomes gain"), run)]
