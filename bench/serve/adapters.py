"""Adapter folders as PEFT writes them, without PEFT: both matrices random, so that each changes what is said."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from processors.training.settings import MODULES

STRENGTH = 0.02


def save(folder: Path, model: Any, rank: int, seed: int, trigger: Sequence[int] = ()) -> None:
    """`trigger`: the tokens from which on an activated adapter is active."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(MODULES),
        "inference_mode": True,
    }
    if trigger:
        config["alora_invocation_tokens"] = list(trigger)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(_tensors(model, rank, seed), folder / "adapter_model.safetensors")


def _tensors(model: Any, rank: int, seed: int) -> dict[str, Tensor]:
    """A as PEFT begins it, B as if it had been trained."""
    dice = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in MODULES:
            reach = module.in_features**-0.5
            a = torch.empty(rank, module.in_features).uniform_(-reach, reach, generator=dice)
            b = torch.empty(module.out_features, rank).normal_(0, STRENGTH, generator=dice)
            tensors[f"base_model.model.{name}.lora_A.weight"] = a
            tensors[f"base_model.model.{name}.lora_B.weight"] = b
    return tensors
