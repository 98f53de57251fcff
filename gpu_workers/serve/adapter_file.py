"""A PEFT adapter folder as plain pairs of matrices, with the scale folded into B."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu_workers.serve.errors import UnusableAdapter

WEIGHT = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")

# Settings that cannot change what a trained adapter computes. Every other one must be off: a setting that the lanes
# do not know would otherwise be served as if it were not there.
HARMLESS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
# Starting points that leave the base as it is. PiSSA, OLoRA and their like move weight out of the base.
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter in memory; equal only to itself, so that a newer one of the same name can never pass for it.

    `pairs[module]` is (A[r, in], B[out, r]) with the scale inside B; ranks may differ between modules.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    rank: int

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for pair in self.pairs.values() for tensor in pair)


def read_adapter(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LoraWeights:
    """Raises UnusableAdapter for whatever could not be served exactly as PEFT would."""
    config = _config(folder)
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except Exception as error:
        raise UnusableAdapter(
            f"{folder}: adapter_model.safetensors cannot be read: {error}. Publish it again."
        ) from error
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = WEIGHT.match(name)
        if found is None:
            raise UnusableAdapter(
                f"{folder}: tensor {name} is not a LoRA matrix of a linear module; it cannot be served."
            )
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    pairs = {module: _pair(folder, config, module, side, dtype, device) for module, side in sorted(sides.items())}
    if not pairs:
        raise UnusableAdapter(f"{folder}: the adapter holds no LoRA matrices, so it would answer as the base does.")
    return LoraWeights(pairs, max(a.shape[0] for a, _ in pairs.values()))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError) as error:
        raise UnusableAdapter(f"{folder}: adapter_config.json cannot be read: {error}. Publish it again.") from error
    if config.get("peft_type") != "LORA":
        raise UnusableAdapter(f"{folder}: peft_type {config.get('peft_type')} cannot be served, only LORA.")
    used = [name for name, value in config.items() if name not in HARMLESS and value and value != "none"]
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        used.append(f"init_lora_weights={config['init_lora_weights']}")
    if used:
        raise UnusableAdapter(f"{folder}: the adapter uses {', '.join(used)}, which the engine does not compute.")
    return config


def _pair(
    folder: Path, config: dict[str, Any], module: str, side: dict[str, Tensor], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    if set(side) != {"A", "B"} or side["A"].ndim != 2 or side["B"].ndim != 2:
        raise UnusableAdapter(f"{folder}: {module} lacks one of its two matrices. Publish the adapter again.")
    a, b = side["A"], side["B"]
    rank = a.shape[0]
    if b.shape[1] != rank or rank != _by_pattern(config.get("rank_pattern"), module, config["r"]):
        raise UnusableAdapter(f"{folder}: {module} has rank {rank}, its configuration says otherwise.")
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return a.to(device, dtype), (b.to(torch.float32) * scale).to(device, dtype)


def _by_pattern(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """PEFT's own rule: the first pattern that is the module's name or a dotted end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
