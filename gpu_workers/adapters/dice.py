"""Adapters by dice, in PEFT's format and a base's own shapes: what adapters cost can be measured by them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from gpu_workers.adapters.check import CONFIG, TENSORS
from processors.training.settings import MODULES

SPREAD = 0.02


def rolled(base: Path, folder: Path, seed: int, rank: int = 16) -> Path:
    """On every module that an adapter may change, in half precision. The same seed gives the same bytes."""
    dice = np.random.default_rng(seed)
    tensors = {}
    for module, out, in_ in _modules(base):
        for side, shape in (("A", (rank, in_)), ("B", (out, rank))):
            drawn = dice.standard_normal(shape, dtype=np.float32) * SPREAD
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = drawn.astype(np.float16)
    folder.mkdir(parents=True)
    save_file(tensors, folder / TENSORS)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(MODULES)}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def _modules(base: Path) -> Iterator[tuple[str, int, int]]:
    """Name, outputs and inputs, from the headers alone."""
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            for name in sorted(tensors.keys()):
                module = name.removesuffix(".weight")
                if name != module and module.rpartition(".")[2] in MODULES:
                    out, in_ = tensors.get_slice(name).get_shape()
                    yield module, out, in_
