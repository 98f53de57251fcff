"""Adapters by dice, in PEFT's format and a base's own shapes: what adapters cost can be measured by them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.bases.shapes import linear_shapes
from processors.training.settings import MODULES

SPREAD = 0.02


def rolled(base: Path, folder: Path, seed: int, rank: int = 16) -> Path:
    """On every module that an adapter may change, in half precision. The same seed gives the same bytes."""
    dice = np.random.default_rng(seed)
    tensors = {}
    for module, (out, in_) in linear_shapes(base).items():
        for side, shape in (("A", (rank, in_)), ("B", (out, rank))):
            drawn = dice.standard_normal(shape, dtype=np.float32) * SPREAD
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = drawn.astype(np.float16)
    folder.mkdir(parents=True)
    save_file(tensors, folder / TENSORS)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(MODULES)}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder
