"""From `ready` to the first token of an adapter that nobody has asked for yet, read from disk."""

import asyncio
import time
from collections.abc import Collection
from statistics import median

from bench.part import Found, Part
from bench.serve.ours import whole
from bench.serve.published import Asked, Published, question
from bench.serve.scene import Scene

NEW = 8


async def first_token(scene: Scene, published: Published, turn: int) -> float:
    spec = published.put(scene.adapters(1)[0], f"ready{turn}")
    async with whole(scene, store=published.store) as engine:
        began = time.perf_counter()
        engine.announce(spec)
        asked = Asked(engine, question("Who are you?", spec.key.name, NEW))
        waited = time.perf_counter() - began
        await asked.answer()
    return waited + asked.first


def run(scene: Scene, _: Collection[str]) -> Found:
    published = Published(scene, scene.root / "ready")
    seconds = [asyncio.run(first_token(scene, published, turn)) for turn in range(scene.turns)]
    return Found({}, {}, {"ready_to_first_token_s": median(seconds)})


PARTS = [Part("ready", ("ready_to_first_token_s",), run)]
