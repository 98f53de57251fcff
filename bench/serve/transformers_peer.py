"""transformers and PEFT, each at its best: greedy, fixed lengths, everything loaded and warm before the clock runs."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig

from bench.serve.scene import Scene
from bench.serve.timed import Timed

Prompts = Sequence[list[int]]
Which = Sequence[int | None]
BATCHING: dict[str, Any] = {"block_size": 32, "num_blocks": 128, "max_batch_tokens": 640, "use_async_batching": False}
"""The best of what was tried on a CPU. Tokens a processor second: 92 with 64 blocks of 256, 99 with 96 of 32, 97 with
180 of 16, 68 to 70 with fewer than all rows need. With defaults it takes half a minute to size its cache, and its async
batching needs CUDA."""


def generate(model: Any, prompts: Prompts, new: int, **more: Any) -> list[list[int]]:
    ids = torch.tensor(prompts)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0, **more
    )
    return [row[len(prompts[0]) :] for row in out.tolist()]


class Plain:
    """The base alone: `generate`, and continuous batching. Its manager is made for each batch, a few percent of it: the
    thread of one that stays would be counted against whoever runs meanwhile."""

    def __init__(self, scene: Scene) -> None:
        self._model = scene.plain.model

    def generated(self, prompts: Prompts, adapters: Which, new: int) -> Timed:
        began = time.process_time()
        return Timed(generate(self._model, prompts, new), time.process_time() - began)

    def batched(self, prompts: Prompts, adapters: Which, new: int) -> Timed:
        settings: Any = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
        began = time.process_time()
        answers = self._model.generate_batch(
            inputs=list(prompts),
            generation_config=settings,
            continuous_batching_config=ContinuousBatchingConfig(**BATCHING),
            warmup=False,
        )
        seconds = time.process_time() - began
        return Timed([list(answer.generated_tokens) for answer in answers.values()], seconds)


class Peft:
    """All adapters in one PeftModel, and the first one merged in a model of its own."""

    def __init__(self, scene: Scene, adapters: Sequence[Path]) -> None:
        first, *others = adapters
        self.model: Any = peft.PeftModel.from_pretrained(scene.load().model, first, adapter_name="a0")
        for i, folder in enumerate(others, 1):
            self.model.load_adapter(folder, adapter_name=f"a{i}")
        self.model.eval()
        self._merged: Any = peft.PeftModel.from_pretrained(scene.load().model, first).merge_and_unload()

    def mixed(self, prompts: Prompts, adapters: Which, new: int) -> Timed:
        names = ["__base__" if which is None else f"a{which}" for which in adapters]
        began = time.process_time()
        return Timed(generate(self.model, prompts, new, adapter_names=names), time.process_time() - began)

    def one_by_one(self, prompts: Prompts, adapters: Which, new: int) -> Timed:
        """Rows sorted by adapter; each adapter's rows are a batch with it alone active."""
        rows: dict[int | None, list[int]] = defaultdict(list)
        for i, which in enumerate(adapters):
            rows[which].append(i)
        said: list[list[int]] = [[] for _ in prompts]
        began = time.process_time()
        for which, places in rows.items():
            self.model.set_adapter(f"a{which}", inference_mode=True)
            for i, row in zip(places, generate(self.model, [prompts[i] for i in places], new), strict=True):
                said[i] = row
        return Timed(said, time.process_time() - began)

    def merged(self, prompts: Prompts, adapters: Which, new: int) -> Timed:
        """Of the first adapter only."""
        began = time.process_time()
        return Timed(generate(self._merged, prompts, new), time.process_time() - began)


def reference(scene: Scene, adapters: Sequence[Path], which: int | None, tokens: list[int]) -> Tensor:
    """The logits after these tokens of a PEFT model that holds this one adapter. Slow: ties are rare."""
    model = scene.load().model
    if which is not None:
        model = peft.PeftModel.from_pretrained(model, adapters[which])
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([tokens])).logits[0, -1]
    return logits
