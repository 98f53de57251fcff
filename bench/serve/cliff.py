"""More adapters are asked for than memory holds: 150 by Zipf's law on a cache of 100, against 100 on a cache of 100."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from random import Random

from bench.harness import Figures, Ratio
from bench.part import Found, Part, beside
from bench.serve.beside import p95
from bench.serve.ours import whole
from bench.serve.published import Published, closed_loop, question
from bench.serve.scene import Scene
from gpu_workers.serve.port import AdapterSpec, InferenceEngine

CACHE, MANY, RANK = 100, 150, 8
IN_FLIGHT, REQUESTS, NEW = 32, 256, 12
OVER, WITHIN = f"{MANY} adapters on a cache of {CACHE}", f"{CACHE} adapters on a cache of {CACHE}"


class Crowded:
    """Two engines with the same cache; one knows more adapters than it holds."""

    def __init__(
        self, runner: asyncio.Runner, engines: dict[int, InferenceEngine], specs: Sequence[AdapterSpec]
    ) -> None:
        self._runner, self._engines, self._specs = runner, engines, specs

    def asked(self, turn: int, known: int) -> Figures:
        """Like for like: the same dice for both."""
        dice = Random(turn)
        weights = [1 / rank for rank in range(1, known + 1)]
        chosen = dice.choices(self._specs[:known], weights, k=REQUESTS)
        questions = [question(f"{turn} {dice.random()}", spec.key.name, NEW) for spec in chosen]
        began = time.perf_counter()
        asked = self._runner.run(closed_loop(self._engines[known], questions, IN_FLIGHT))
        seconds = time.perf_counter() - began
        return {"requests/s": REQUESTS / seconds, "ttft_p95_s": p95(each.first for each in asked)}


async def ready(
    scene: Scene, stack: AsyncExitStack, specs: Sequence[AdapterSpec], published: Published, known: int
) -> InferenceEngine:
    engine = await stack.enter_async_context(whole(scene, adapters=CACHE, store=published.store))
    for spec in specs[:CACHE]:
        await engine.load(spec)
    for spec in specs[CACHE:known]:
        engine.announce(spec)
    return engine


def run(scene: Scene, keys: Collection[str]) -> Found:
    published = Published(scene, scene.root / "cliff")
    specs = [published.put(folder, folder.name) for folder in scene.adapters(MANY, RANK)]
    ratios = {
        "cliff_ttft_p95": Ratio("ttft_p95_s", OVER, WITHIN),
        "cliff_throughput": Ratio("requests/s", OVER, WITHIN),
    }
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        engines = {known: runner.run(ready(scene, stack, specs, published, known)) for known in (MANY, CACHE)}
        crowded = Crowded(runner, engines, specs)
        contestants: dict[str, Callable[[int], Figures]] = {
            OVER: lambda turn: crowded.asked(turn, MANY),
            WITHIN: lambda turn: crowded.asked(turn, CACHE),
        }
        try:
            return beside("serve cliff", contestants, {key: ratios[key] for key in keys}, scene)
        finally:
            runner.run(stack.aclose())


PARTS = [Part("cliff", ("cliff_ttft_p95", "cliff_throughput"), run)]
