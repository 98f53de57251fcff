"""What each method reaches on held-out requests whose values were never trained, and that a run can be had again."""

import time
from collections.abc import Collection
from typing import Any

from bench.part import Found, Missing, Part
from bench.train.scene import Scene, child
from gpu_workers.train.lines import to_bytes
from processors.training.settings import OF_METHOD, TrainSettings

RECIPE: dict[str, Any] = {"dropout": 0.0}
"""The defaults, 24 steps of eight, but for dropout."""
OF: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "rslora": ("rslora", {"alpha": 8.0}),
    "qlora": ("qlora", {}),
    "activated": ("lora", {"activation": "generation-prompt", "rank": 32, "alpha": 64.0}),
    "adalora": ("adalora", dict(OF_METHOD["adalora"])),
}
"""Activated at twice the rank; rsLoRA at the scale that LoRA has here, alpha over the root of the rank."""
AGAIN = 3
QUICK = TrainSettings(rank=4, alpha=8, steps=4, batch=4, warmup=1, evaluation_rows=0)


def exact(scene: Scene, keys: Collection[str]) -> Found:
    results: dict[str, dict[str, float]] = {}
    costs: dict[str, float] = {}
    for name, (method, more) in OF.items():
        if not any(name in key for key in keys):
            continue
        try:
            spec = scene.spec(f"exact-{name}", method, TrainSettings(**(RECIPE | more)), scene.rows)
        except Missing as why:
            print(f"exact {name}: left out: {why}")
            continue
        began = time.perf_counter()
        said = child("ran", to_bytes(spec).decode(), scene.threads)
        figures = {each: float(said[each]) for each in ("before", "after", "cpu_s", "peak_rss_mb")}
        if said["ranks"]:
            figures |= dict(zip(("least rank", "most rank"), map(float, said["ranks"]), strict=True))
        results[f"exact {name}"] = figures | {"wall_s": time.perf_counter() - began}
        costs[f"exact {name}"] = figures["after"]
    if {"exact lora", "exact qlora"} <= costs.keys():
        costs["exact qlora behind lora"] = costs["exact lora"] - costs["exact qlora"]
    if not costs:
        raise Missing("none of these methods is there")
    return Found(results, {}, costs)


def replay(scene: Scene, keys: Collection[str]) -> Found:
    """So many times that dataset and adapter, each by a process of its own, had the bytes of the first."""
    bases = {"replay tiny": str(scene.tiny), "replay": scene.base}
    return Found({}, {}, {key: float(_alike(scene, key, bases[key])) for key in keys})


def _alike(scene: Scene, key: str, base: str) -> int:
    made = []
    for time_ in range(AGAIN):
        rows = scene.made_again(f"{key}-{time_}")
        spec = scene.spec(f"{key}-{time_}", "lora", QUICK, rows, base)
        said = child("ran", to_bytes(spec).decode(), scene.threads)
        made.append((said["dataset_sha256"], said["sha256"]))
    return made.count(made[0])


PARTS = [
    Part("exact", (*(f"exact {name}" for name in OF), "exact qlora behind lora"), exact),
    Part("replay", ("replay tiny", "replay"), replay),
]
