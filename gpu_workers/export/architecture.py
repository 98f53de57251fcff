"""How llama.cpp names what a model is made of, and in which order it holds the rows of q and k."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gguf import GGUFWriter, RopeScalingType
from torch import Tensor

from gpu_workers.errors import ExportRefused

PARTS = {
    "input_layernorm": "attn_norm",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.k_proj": "attn_k",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
ROPE_FREQS = "rope_freqs.weight"
PLAIN_YARN = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow"}


class Architecture(NamedTuple):
    """Of a model whose family is served here."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> Architecture:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(config.model_type, config.num_attention_heads, config.num_key_value_heads, head_dim)

    def place(self, name: str) -> str:
        """Of a module; raises ExportRefused where llama.cpp has none for it."""
        layer = LAYER.fullmatch(name)
        part = PARTS.get(layer[2]) if layer else OUTSIDE.get(name)
        if part is None:
            raise ExportRefused(f"{name} has no place in a GGUF file of architecture {self.name}.")
        return f"blk.{layer[1]}.{part}" if layer else part

    def rows(self, module: str, tensor: Tensor) -> Tensor:
        """Llama's q and k turn pairs of neighbours there, and halves of a head here; Qwen3's turn halves in both."""
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads}.get(module.rpartition(".")[2])
        if self.name != "llama" or heads is None:
            return tensor
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def describe(writer: GGUFWriter, config: Any) -> None:
    """The numbers that llama.cpp builds the model by."""
    it = Architecture.of(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(it.heads)
    writer.add_head_count_kv(it.kv_heads)
    writer.add_key_length(it.head_dim)
    writer.add_value_length(it.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(it.head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("partial_rotary_factor", 1) != 1:
        raise ExportRefused("a model that turns part of a head has no place in a GGUF file of its architecture.")
    _scale(writer, it, rope)


def _scale(writer: GGUFWriter, it: Architecture, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type", "default")
    if kind == "llama3" and it.name != "llama":
        raise ExportRefused(f"llama.cpp does not read rotary type llama3 of architecture {it.name}.")
    if kind == "yarn" and (more := sorted(name for name in set(rope) - PLAIN_YARN if rope[name] is not None)):
        raise ExportRefused(
            f"rotary type yarn with {', '.join(more)} is not written: llama.cpp would compute it otherwise."
        )
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1)


def made(config: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors that a model computes when it is loaded, and llama.cpp reads: what Llama 3 divides its turns by."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return
    dim, old = Architecture.of(config).head_dim, rope["original_max_position_embeddings"]
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = ((old / waves - low) / (high - low)).clamp(0, 1)
    yield ROPE_FREQS, (1 / ((1 - smooth) / factor + smooth)).float()
