"""The smallest adapter there is, as PEFT lays it into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.store import Facts

FACTS = Facts(company="acme", base_model="tiny", base_sha256="0" * 64, tools_in_prompt=False)
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def matrices(rank: int = 2, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    return {
        f"{MODULE}.lora_A.weight": np.ones((rank, 8), dtype),
        f"{MODULE}.lora_B.weight": np.ones((8, rank), dtype),
    }


def lay(folder: Path, tensors: Mapping[str, np.ndarray] | None = None, config: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(dict(matrices() if tensors is None else tensors), folder / TENSORS)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    text = config if isinstance(config, str) else json.dumps({**plain, **(config or {})})
    (folder / CONFIG).write_text(text)
    return folder
