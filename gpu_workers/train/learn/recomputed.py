"""What is cheap to compute again is not kept until the way back: of a feed-forward block, its two widest products.

The same operations on the same numbers: gradients are the same to the bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Again = Callable[[], Tensor]


@contextmanager
def frugal(causal: Any) -> Iterator[None]:
    """While it lasts. Blocks are those of Llama and Qwen3, of which all are that train here."""
    blocks = [layer.mlp for layer in causal.model.layers]
    for block in blocks:
        block.forward = partial(_forward, block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _forward(block: Any, x: Tensor) -> Tensor:
    gate, up = block.gate_proj(x), block.up_proj(x)
    kept = gate.detach(), up.detach()
    recipes: dict[int, Again] = {}
    with saved_tensors_hooks(partial(_pack, recipes), _unpack):
        # Both live to the end of this block: no other tensor lies where one of them does.
        opened = block.act_fn(gate)
        recipes[opened.data_ptr()] = lambda: block.act_fn(kept[0])
        product = opened * up
        recipes[product.data_ptr()] = lambda: block.act_fn(kept[0]) * kept[1]
        out: Tensor = block.down_proj(product)
    return out


def _pack(recipes: dict[int, Again], saved: Tensor) -> Tensor | Again:
    again = recipes.get(saved.data_ptr())
    if again is None or not saved.is_contiguous():
        return saved
    shape = saved.shape
    return lambda: again().view(shape)  # whole: nothing takes a part of it


@torch.no_grad()
def _unpack(packed: Tensor | Again) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed()
