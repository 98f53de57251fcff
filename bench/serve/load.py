"""An adapter from disk into memory, checked, against PEFT's load_adapter; and whether 100 others there slow it down.

The warm-up reads each hash once, and with that tries it: what is measured is a reading again, as after an eviction. The
first reading of a hash costs three times as much. Nor is it in a lane then, which its first row pays.
"""

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import msgspec
import peft

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside
from bench.serve.ours import whole
from bench.serve.published import COMPANY, Published
from bench.serve.scene import Scene
from gpu_workers.serve.port import AdapterKey, AdapterSpec, InferenceEngine

EACH_TURN, RESIDENT, RANK = 4, 100, 16
OURS, FULL, PEER = "ours, read again", f"ours, read again, {RESIDENT} resident", "PEFT load_adapter"


class Loader:
    """Fresh names each time: nothing is there already."""

    def __init__(self, runner: asyncio.Runner, specs: list[AdapterSpec]) -> None:
        self._runner, self._specs, self._names = runner, specs, count()

    def ours(self, engine: InferenceEngine) -> Figures:
        names = [AdapterKey(f"{COMPANY}/fresh{next(self._names)}", 1) for _ in self._specs]
        fresh = [msgspec.structs.replace(spec, key=key) for spec, key in zip(self._specs, names, strict=True)]
        began = time.process_time()
        for spec in fresh:
            self._runner.run(engine.load(spec))
        seconds = time.process_time() - began
        for key in names:
            self._runner.run(engine.unload(key.name))
        return {"cpu_s/adapter": seconds / len(fresh)}

    def theirs(self, model: Any, folders: list[Any]) -> Figures:
        names = [f"fresh{next(self._names)}" for _ in folders]
        began = time.process_time()
        for name, folder in zip(names, folders, strict=True):
            model.load_adapter(folder, adapter_name=name)
        seconds = time.process_time() - began
        for name in names:
            model.delete_adapter(name)
        return {"cpu_s/adapter": seconds / len(folders)}


async def holding(
    scene: Scene, stack: AsyncExitStack, published: Published, held: list[AdapterSpec]
) -> InferenceEngine:
    room = RESIDENT + EACH_TURN
    engine = await stack.enter_async_context(whole(scene, adapters=room, store=published.store))
    for spec in held:
        await engine.load(spec)
    return engine


def run(scene: Scene, keys: Collection[str]) -> Found:
    published, folders = Published(scene, scene.root / "load"), scene.adapters(EACH_TURN, RANK)
    specs = [published.put(folder, folder.name) for folder in folders]
    small = [published.put(folder, f"small-{folder.name}") for folder in scene.adapters(RESIDENT, 2)]
    model = peft.PeftModel.from_pretrained(scene.load().model, folders[0], adapter_name="first")
    ratios = {"load": Ratio("cpu_s/adapter", PEER, OURS), "load_flat": Ratio("cpu_s/adapter", FULL, OURS)}
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        empty, full = (runner.run(holding(scene, stack, published, held)) for held in ([], small))
        loader = Loader(runner, specs)
        contestants = {
            OURS: lambda _: loader.ours(empty),
            FULL: lambda _: loader.ours(full),
            PEER: lambda _: loader.theirs(model, folders),
        }
        try:
            return beside("serve load", contestants, {key: ratios[key] for key in keys}, scene)
        finally:
            runner.run(stack.aclose())


PARTS = [Part("load", ("load", "load_flat"), run)]
