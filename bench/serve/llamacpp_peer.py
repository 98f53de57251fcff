"""llama.cpp's own server inside this process (xllamacpp), on one thread: base and adapters in float32.

It batches no two adapters, so it has 32 slots of its own continuous batching, and each request names its adapter. Asked
in the order of adapters, so that it changes as seldom as it can.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import xllamacpp

from bench.serve.scene import Scene
from bench.serve.timed import Timed
from gpu_workers.bases.identity import identify
from gpu_workers.bases.load import prepare
from gpu_workers.export.adapter import ReadyBase, export_gguf
from gpu_workers.export.base_model import export_base

CELLS = 128
"""Of each slot's cache: prompt and answer are shorter."""


class LlamaCpp:
    def __init__(self, scene: Scene, adapters: Sequence[Path], slots: int) -> None:
        home, folder = scene.root / "gguf", prepare(scene.base, scene.cache)
        base, whole = ReadyBase(folder, identify("base", folder, "float32")), home / "base.gguf"
        export_base(scene.base, scene.cache, whole)
        files = [export_gguf(each, base, home / f"{i}.gguf") for i, each in enumerate(adapters)]
        settings = xllamacpp.CommonParams()
        settings.model.path = str(whole)
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.n_parallel, settings.n_ctx, settings.n_batch = slots, slots * CELLS, slots * CELLS
        settings.lora_init_without_apply = True
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 0.0) for file in files]
        settings.port, settings.verbosity, settings.cache_prompt = 0, -1, False
        self._server = xllamacpp.Server(settings)
        self._count, self._slots = len(files), slots

    def said(self, prompts: Sequence[list[int]], adapters: Sequence[int | None], new: int) -> Timed:
        order = sorted(range(len(prompts)), key=lambda i: -1 if (which := adapters[i]) is None else which)
        began = time.process_time()
        with (
            httpx.Client(base_url=self._server.listening_address, timeout=600, trust_env=False) as client,
            ThreadPoolExecutor(self._slots) as pool,
        ):
            bodies = [self._body(prompts[i], adapters[i], new) for i in order]
            answers = list(pool.map(lambda body: client.post("/completion", json=body).json()["tokens"], bodies))
        seconds = time.process_time() - began
        return Timed([answers[order.index(i)] for i in range(len(prompts))], seconds)

    def _body(self, prompt: list[int], adapter: int | None, new: int) -> dict[str, object]:
        return {
            "prompt": prompt,
            "n_predict": new,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
            "lora": [{"id": i, "scale": float(i == adapter)} for i in range(self._count)],
        }
