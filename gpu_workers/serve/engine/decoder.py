"""Llama and Qwen3 as one small decoder over KV in pages, with a LoRA site at every linear module.

A step takes any number of new tokens of each row over what is in its pages already. It shares the weights of the
transformers model that it is made from and answers with the same tokens. Rows are packed: no padding passes through a
linear module.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_workers.bases.servable import FAMILIES
from gpu_workers.refused import UnsupportedModel
from gpu_workers.serve.engine.attention import Attention, RowSpan
from gpu_workers.serve.engine.kv import KVCache, page_bytes
from gpu_workers.serve.engine.lanes import Plan, Site
from gpu_workers.serve.engine.linear import Linear
from gpu_workers.serve.engine.moved import moved


@dataclass(frozen=True)
class Tokens:
    """What goes through the model in one step: row after row, so many new tokens of each."""

    ids: Tensor
    positions: Tensor
    cells: Tensor
    """Where in the cache the KV of each token is written."""
    spans: Sequence[RowSpan]
    asks: Tensor
    """Those after which a token is wanted."""
    plan: Plan


class Computed(NamedTuple):
    """What a step computed."""

    logits: Tensor
    """After each token of `asks`."""
    finite: Tensor
    """Of each span: whether its numbers are numbers, and so the KV that it wrote."""


class Projections:
    """Linear modules that read the same input, with their common LoRA site."""

    def __init__(self, *linears: Linear) -> None:
        self.linears = linears
        self.site = Site([linear.name for linear in linears], [linear.shape for linear in linears])

    def __call__(self, x: Tensor, plan: Plan) -> list[Tensor]:
        outs = [linear(x) for linear in self.linears]
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

    def beside(self) -> Self:
        """The same weights, with sites of its own."""
        other = copy(self)
        for name in ("qkv", "o", "gate_up", "down"):
            setattr(other, name, Projections(*getattr(self, name).linears))
        return other

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.qkv.site, self.o.site, self.gate_up.site, self.down.site


class Decoder:
    """`forward` writes the KV of the step's tokens and returns the logits of those that ask."""

    def __init__(self, model: Any) -> None:
        config = model.config
        _check(config)
        inner = model.model
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps: float = config.rms_norm_eps
        self.context: int = config.max_position_embeddings
        self.embedding: Tensor = inner.embed_tokens.weight
        self.head = Linear(model.lm_head, "lm_head")
        self.norm: Tensor = inner.norm.weight
        self.layers = [Layer(layer, f"model.layers.{i}") for i, layer in enumerate(inner.layers)]
        self._rotation = _turns(inner.rotary_emb, self.embedding, self.context)

    def beside(self) -> Self:
        """For adapters of its own, over the same weights."""
        other = copy(self)
        other.layers = [layer.beside() for layer in self.layers]
        return other

    @property
    def sites(self) -> list[Site]:
        return [site for layer in self.layers for site in layer.sites]

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every linear module that an adapter may change."""
        return {module: shape for site in self.sites for module, shape in zip(site.modules, site.shapes, strict=True)}

    def cache(self, pages: int, size: int) -> KVCache:
        return KVCache(len(self.layers), self.kv_heads, self.head_dim, self.embedding, pages, size)

    def page_bytes(self, size: int) -> int:
        return page_bytes(len(self.layers), self.kv_heads, self.head_dim, self.embedding, size)

    @torch.inference_mode()
    def forward(self, tokens: Tokens, cache: KVCache) -> Computed:
        x = self.embedding[tokens.ids]
        cos, sin = self._rotation[:, tokens.positions, None]
        lasts = [span.first + span.length - 1 for span in tokens.spans]
        [last] = moved([torch.tensor(lasts)], x.device)
        attend = Attention(tokens.spans, cache, self.heads, self.kv_heads)
        for i, layer in enumerate(self.layers):
            q, k, v = layer.qkv(_norm(x, layer.norm_in, self.eps), tokens.plan)
            q, k, v = (part.view(len(x), -1, self.head_dim) for part in (q, k, v))
            if layer.norm_q is not None and layer.norm_k is not None:
                q, k = _norm(q, layer.norm_q, self.eps), _norm(k, layer.norm_k, self.eps)
            cache.write(i, tokens.cells, _rotate(k, cos, sin), v)
            seen = attend(cache.store[i], _rotate(q, cos, sin))
            x = x + layer.o(seen.reshape(len(x), -1), tokens.plan)[0]
            gate, up = layer.gate_up(_norm(x, layer.norm_mlp, self.eps), tokens.plan)
            x = x + layer.down(F.silu(gate).mul_(up), tokens.plan)[0]
        logits = self.head(_norm(x[tokens.asks], self.norm, self.eps))
        return Computed(logits, _finite(x, last))


def _turns(rotary: Any, like: Tensor, reach: int) -> Tensor:
    """Cosines and sines by the model's own rule, for every place that there is."""
    table = rotary(like, torch.arange(reach, device=like.device)[None])
    return torch.stack([part[0] for part in table])


def _finite(x: Tensor, last: Tensor) -> Tensor:
    """Of each row, whose last tokens these are. A key or value that is no number makes its own token's stream none:
    what leaves the last layer tells."""
    broken = (~x.isfinite().all(-1)).cumsum(0)
    return broken[last].diff(prepend=broken.new_zeros(1)) == 0


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
