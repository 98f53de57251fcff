"""Tiny models with strong adapters, made by PEFT itself, and PEFT's own answers to hold ours against."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 211

# Every shape that an adapter may have: ranks, alphas, modules, rank-stabilised scales, patterns.
SHAPES: dict[str, dict[str, Any]] = {
    "r8": {"r": 8, "lora_alpha": 16, "target_modules": ALL},
    "r16-rslora": {"r": 16, "lora_alpha": 8, "use_rslora": True, "target_modules": ALL},
    "r4-qv": {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]},
    "r32-mlp": {"r": 32, "lora_alpha": 16, "target_modules": ["up_proj", "down_proj"]},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ALL,
        "rank_pattern": {"layers.0.self_attn.q_proj": 12, "down_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.k_proj": 64, "up_proj": 24},
    },
    "one-layer": {"r": 8, "lora_alpha": 32, "target_modules": ["o_proj"], "layers_to_transform": [1]},
}


Kept = tuple[Path, int]
"""An adapter's folder, and when its tensors were last written."""


def with_adapter(base: PreTrainedModel, folder: Path, kept: dict[Kept, Any]) -> Any:
    """PEFT's model of it, loaded once and as it was loaded then: nobody trains it, or merges it."""
    key = (folder, (folder / "adapter_model.safetensors").stat().st_mtime_ns)
    if key not in kept:
        kept[key] = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
    return kept[key]


@dataclass
class Zoo:
    """A base, adapter folders, and what PEFT says with exactly one of them."""

    base: PreTrainedModel
    folders: dict[str, Path]
    adapted: dict[Kept, Any] = field(default_factory=dict)

    def greedy(self, adapter: str | None, prompt: list[int], new: int, stop: int = -1) -> list[int]:
        model: Any = self.base if adapter is None else with_adapter(self.base, self.folders[adapter], self.adapted)
        ids, said = list(prompt), []
        with torch.inference_mode():
            while len(said) < new and (not said or said[-1] != stop):
                said.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                ids.append(said[-1])
        return said


def tiny(family: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "bos_token_id": None,
        "eos_token_id": None,
    } | changes
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    return Qwen3ForCausalLM(Qwen3Config(**shape)).eval()


def save_adapter(base: PreTrainedModel, folder: Path, seed: int, **config: Any) -> Path:
    """An adapter with both matrices random, so that it changes almost every token."""
    model: Any = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    base = tiny(request.param)
    root = tmp_path_factory.mktemp(request.param)
    shapes = enumerate(SHAPES.items())
    return Zoo(base, {name: save_adapter(base, root / name, seed, **shape) for seed, (name, shape) in shapes})
