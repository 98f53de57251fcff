"""From a trained adapter to PEFT's own two files, with nothing in them that another run of the same spec would not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from gpu_workers.adapters.config import KNOWN, LORA_E, RANKNUM_EPSILON
from gpu_workers.adapters.store import CONFIG, TENSORS
from gpu_workers.bases.files import BaseIdentity
from gpu_workers.train.learn.methods import Adapted

PREFIX = "base_model.model."


def save(adapted: Adapted, base: BaseIdentity, out: Path) -> None:
    """AdaLoRA as PEFT's AdaLoRA; where it is activated, which PEFT has no form for, as the LoRA that it equals."""
    tensors = dict(sorted(get_peft_model_state_dict(adapted.model).items()))
    config: dict[str, Any] = adapted.model.peft_config["default"].to_dict()
    if adapted.activation is not None:
        if config["peft_type"] == "ADALORA":
            tensors, config = as_lora(tensors, config)
        config |= {"alora_invocation_tokens": list(adapted.activation.trigger)}
    config |= {"base_model_name_or_path": base.name, "revision": base.sha256, "inference_mode": True}
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, out / TENSORS, metadata={"format": "pt"}
    )
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain["target_modules"] = sorted(plain["target_modules"])
    (out / CONFIG).write_text(json.dumps(plain, sort_keys=True, indent=2, default=str) + "\n")


def as_lora(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What AdaLoRA came to, with singular values and scale folded in: each module's own rank is its alpha, and what
    was pruned to nothing has no matrices."""
    first, folded, ranks, empty = config["init_r"], {}, {}, []
    for name in [name for name in tensors if name.endswith(LORA_E)]:
        whole = name.removesuffix(LORA_E)
        module = whole.removeprefix(PREFIX)
        if not len(tensors[name]):
            empty.append(module)
            continue
        ranks[module] = len(tensors[name])
        folded[f"{whole}.lora_A.weight"] = tensors[f"{whole}.lora_A"] * tensors[name]
        folded[f"{whole}.lora_B.weight"] = tensors[f"{whole}.lora_B"] * (
            config["lora_alpha"] / (first + RANKNUM_EPSILON)
        )
    kept = {key: value for key, value in config.items() if key in KNOWN}
    kept |= {"peft_type": "LORA", "r": first, "lora_alpha": first, "exclude_modules": empty or None}
    kept |= {"rank_pattern": ranks, "alpha_pattern": ranks}
    return dict(sorted(folded.items())), kept
