"""Adapters of every kind that PEFT makes and we serve, with both matrices random, on a base of any size."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
from safetensors.torch import load_file, save_file

from processors.training.settings import MODULES

STRENGTH = 0.2
TENSORS = "adapter_model.safetensors"
ALL = {"task_type": "CAUSAL_LM", "target_modules": list(MODULES)}
PRUNED = 3
"""Every so many of an AdaLoRA adapter's singular values is 0: its budget was cut."""


class Kind(NamedTuple):
    settings: dict[str, Any]
    config: Any = peft.LoraConfig
    activated: bool = False

    def made(self, trigger: Sequence[int]) -> Any:
        at = {"alora_invocation_tokens": list(trigger)} if self.activated else {}
        return self.config(**(ALL | self.settings | at))


PATTERNS = {"rank_pattern": {"down_proj": 2, "q_proj": 12}, "alpha_pattern": {"up_proj": 24}}
BUDGET = {"init_r": 8, "target_r": 4, "tinit": 1, "tfinal": 1, "deltaT": 1, "total_step": 10}
KINDS = {
    "LoRA of rank 8": Kind({"r": 8, "lora_alpha": 16}),
    "rsLoRA of rank 16": Kind({"r": 16, "lora_alpha": 8, "use_rslora": True}),
    "LoRA of rank 4 on two modules": Kind({"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}),
    "LoRA of rank 64 on one module": Kind({"r": 64, "lora_alpha": 32, "target_modules": ["down_proj"]}),
    "LoRA with patterns": Kind({"r": 4, "lora_alpha": 8} | PATTERNS),
    "LoRA of one layer": Kind({"r": 8, "lora_alpha": 32, "target_modules": ["o_proj"], "layers_to_transform": [1]}),
    "AdaLoRA": Kind({"lora_alpha": 8} | BUDGET, peft.AdaLoraConfig),
    "activated LoRA": Kind({"r": 32, "lora_alpha": 64}, activated=True),
}


def make(base: Any, kind: str, seed: int, folder: Path, trigger: Sequence[int], strength: float = STRENGTH) -> Path:
    dice = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of patterns, and of an inference mode
        model: Any = peft.get_peft_model(copy.deepcopy(base), KINDS[kind].made(trigger))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=dice) * strength)
                if "lora_E" in name:
                    weight.mul_(1 / strength)[::PRUNED].zero_()
        _save(model, folder)
    return folder


def _save(model: Any, folder: Path) -> None:
    """As `save_pretrained` does, but for the model card, which takes longer than all the rest."""
    folder.mkdir(parents=True)
    save_file(peft.get_peft_model_state_dict(model), folder / TENSORS)
    config = model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(folder)


def broken(folder: Path) -> Path:
    """Its numbers are none."""
    tensors = load_file(folder / TENSORS)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, folder / TENSORS)
    return folder


def names(count: int) -> Iterator[tuple[str, str]]:
    """(name, kind), kind after kind; of three companies."""
    kinds = list(KINDS)
    for i in range(count):
        yield f"company{i % 3}/role{i}", kinds[i % len(kinds)]
