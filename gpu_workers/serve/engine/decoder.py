"""Llama and Qwen3 as one small decoder over a dense KV cache, with a LoRA site at every linear module.

It shares the weights of the transformers model that it is made from and answers with the same tokens. Rows are packed:
no padding passes through a linear module, in a prompt or in an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_workers.bases.files import FAMILIES
from gpu_workers.refused import UnsupportedModel
from gpu_workers.serve.engine.kv import KVCache
from gpu_workers.serve.engine.lanes import Plan, Site


@dataclass(frozen=True)
class Tokens:
    """The tokens of one step, row after row."""

    ids: Tensor
    slots: Tensor
    """KV slot of each token."""
    positions: Tensor
    lengths: Sequence[int]
    """Tokens of each row in this step; all 1 while decoding."""
    plan: Plan
    prefill: bool


class Linear:
    """A frozen linear module: its weight and where its LoRA is found."""

    def __init__(self, module: nn.Linear, name: str) -> None:
        self.weight: Tensor = module.weight
        self.bias: Tensor | None = module.bias
        self.name = name

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]


class Projections:
    """Linear modules that read the same input, with their common LoRA site."""

    def __init__(self, *linears: Linear) -> None:
        self._linears = linears
        self.site = Site([linear.name for linear in linears], [linear.shape for linear in linears])

    def __call__(self, x: Tensor, plan: Plan) -> list[Tensor]:
        outs = [F.linear(x, linear.weight, linear.bias) for linear in self._linears]
        self.site.add(plan, x, outs)
        return outs


class Layer:
    def __init__(self, layer: Any, prefix: str) -> None:
        attention, mlp = layer.self_attn, layer.mlp

        def linear(parent: Any, where: str, name: str) -> Linear:
            return Linear(getattr(parent, name), f"{prefix}.{where}.{name}")

        self.qkv = Projections(*(linear(attention, "self_attn", f"{n}_proj") for n in "qkv"))
        self.o = Projections(linear(attention, "self_attn", "o_proj"))
        self.gate_up = Projections(*(linear(mlp, "mlp", f"{n}_proj") for n in ("gate", "up")))
        self.down = Projections(linear(mlp, "mlp", "down_proj"))
        self.norm_in: Tensor = layer.input_layernorm.weight
        self.norm_mlp: Tensor = layer.post_attention_layernorm.weight
        self.norm_q: Tensor | None = attention.q_norm.weight if hasattr(attention, "q_norm") else None
        self.norm_k: Tensor | None = attention.k_norm.weight if hasattr(attention, "k_norm") else None

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.qkv.site, self.o.site, self.gate_up.site, self.down.site


class Decoder:
    """`forward` writes the KV of the step's tokens and returns the logits of each row's last one."""

    def __init__(self, model: Any) -> None:
        config = model.config
        _check(config)
        inner = model.model
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps: float = config.rms_norm_eps
        self.context: int = config.max_position_embeddings
        self.embedding: Tensor = inner.embed_tokens.weight
        self.head: Tensor = model.lm_head.weight
        self.norm: Tensor = inner.norm.weight
        self.layers = [Layer(layer, f"model.layers.{i}") for i, layer in enumerate(inner.layers)]
        self._rotary = inner.rotary_emb
        self._turns = torch.empty(0)

    @property
    def sites(self) -> list[Site]:
        return [site for layer in self.layers for site in layer.sites]

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every linear module that an adapter may change."""
        return {module: shape for site in self.sites for module, shape in zip(site.modules, site.shapes, strict=True)}

    def cache(self, cells: int) -> KVCache:
        return KVCache(len(self.layers), self.kv_heads, self.head_dim, self.embedding, cells)

    @torch.inference_mode()
    def forward(self, tokens: Tokens, cache: KVCache) -> Tensor:
        x = self.embedding[tokens.ids]
        cos, sin = self._rotation(tokens.positions, cache.positions)
        attend = _Prefill(tokens, cache) if tokens.prefill else _Decode(tokens, cache)
        for i, layer in enumerate(self.layers):
            q, k, v = layer.qkv(_norm(x, layer.norm_in, self.eps), tokens.plan)
            q, k, v = (part.view(len(x), -1, self.head_dim) for part in (q, k, v))
            if layer.norm_q is not None and layer.norm_k is not None:
                q, k = _norm(q, layer.norm_q, self.eps), _norm(k, layer.norm_k, self.eps)
            seen = attend(cache.store[i], _rotate(q, cos, sin), _rotate(k, cos, sin), v)
            x = x + layer.o(seen.reshape(len(x), -1), tokens.plan)[0]
            gate, up = layer.gate_up(_norm(x, layer.norm_mlp, self.eps), tokens.plan)
            x = x + layer.down(F.silu(gate).mul_(up), tokens.plan)[0]
        last = torch.tensor(tokens.lengths, device=x.device).cumsum(0) - 1
        return F.linear(_norm(x[last], self.norm, self.eps), self.head)

    def _rotation(self, positions: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines by the model's own rule, tabled once for the positions in reach."""
        if self._turns.shape[0] == 0 or self._turns.shape[1] < reach:
            table = self._rotary(self.embedding, torch.arange(reach, device=positions.device)[None])
            self._turns = torch.stack([part[0] for part in table])
        cos, sin = self._turns[:, positions, None]
        return cos, sin


class _Decode:
    """One new token a row over dense slots. The heads that share a KV head are rows of one small product."""

    def __init__(self, tokens: Tokens, cache: KVCache) -> None:
        self._slots, self._positions = tokens.slots, tokens.positions
        self._rows = int(tokens.slots.max()) + 1
        self._reach = int(tokens.positions.max()) + 1
        by_slot = tokens.positions.new_zeros(self._rows)
        by_slot[tokens.slots] = tokens.positions
        columns = torch.arange(self._reach, device=by_slot.device)
        self._mask = (columns <= by_slot[:, None])[:, None, None]

    def __call__(self, store: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        store[0, self._slots, :, self._positions] = k
        store[1, self._slots, :, self._positions] = v
        keys, values = store[0, : self._rows, :, : self._reach], store[1, : self._rows, :, : self._reach]
        by_slot = q.new_zeros(self._rows, *q.shape[1:])
        by_slot[self._slots] = q
        grouped = by_slot.view(self._rows, k.shape[1], -1, q.shape[2])
        seen = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self._mask)
        return seen.reshape(by_slot.shape)[self._slots]


class _Prefill:
    """Whole prompts of new rows: padded on the right, where causal attention never looks.

    Each row is padded with its own last token: a masked number is weighted by 0, and 0 times another row's NaN is NaN.
    """

    def __init__(self, tokens: Tokens, cache: KVCache) -> None:
        self._slots, self._positions = tokens.slots, tokens.positions
        lengths = torch.tensor(tokens.lengths, device=tokens.ids.device)
        longest = int(lengths.max())
        cell = torch.arange(longest, device=lengths.device)
        starts = lengths.cumsum(0) - lengths
        filled = cell < lengths[:, None]
        self._grid = starts[:, None] + torch.minimum(cell, lengths[:, None] - 1)
        self._cells = filled.flatten().nonzero().flatten()

    def __call__(self, store: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        store[0, self._slots, :, self._positions] = k
        store[1, self._slots, :, self._positions] = v
        shared = q.shape[1] // k.shape[1]
        q, k, v = (part[self._grid].transpose(1, 2) for part in (q, k, v))
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return seen.transpose(1, 2).flatten(0, 1)[self._cells]


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


def _check(config: object) -> None:
    family = getattr(config, "model_type", "?")
    if family not in FAMILIES:
        raise UnsupportedModel(f"model family {family} cannot be served, only {' and '.join(FAMILIES)}.")
    if getattr(config, "hidden_act", "silu") != "silu" or getattr(config, "use_sliding_window", False):
        raise UnsupportedModel(f"this {family} uses sliding windows or another activation than silu: not served.")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear", "llama3", "yarn"):
        raise UnsupportedModel(f"rotary type {rope['rope_type']} depends on the prompt's length: not served.")
