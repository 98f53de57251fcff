"""A base model in four bits: NF4 with double quantisation, in bitsandbytes' own numbers (QLoRA, arXiv 2305.14314).

In plain torch: it runs wherever torch does, and costs no start what importing bitsandbytes does, some seconds.
Weights lie packed, two to a byte, and are unpacked for each product.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK, SCALES = 64, 256
"""Weights that share a scale; scales that share one of their own."""
FORMAT = "nf4, double, 64/256"
HEAD = "lm_head"
"""Stays as it is: so do embeddings and norms."""


class Nf4Linear(nn.Linear):
    """Frozen, in four bits. `weight` is what it multiplies by, unpacked each time somebody asks."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.dtype = linear.weight.dtype
        packed, scales, mean, largest = pack(linear.weight.detach())
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("largest", largest, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        tensors: Any = self
        parts = tensors.packed, tensors.scales, tensors.mean, tensors.largest
        return unpack(*parts, shape=(self.out_features, self.in_features)).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Times.apply(x, self)
        return product if self.bias is None else product + self.bias


class _Times(Function):
    """Nothing unpacked is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Nf4Linear) -> Tensor:
        ctx.linear = linear
        return F.linear(x, linear.weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.linear.weight, None


def quantise(model: nn.Module) -> None:
    """One module after the other: both forms of all are never in memory at once."""
    for parent, name, linear in _packable(model):
        setattr(parent, name, Nf4Linear(linear))


@torch.no_grad()
def roundly(model: nn.Module) -> None:
    """The same numbers unpacked, for who multiplies by them all the time and has the room."""
    for _, _, linear in _packable(model):
        linear.weight.copy_(unpack(*pack(linear.weight), shape=(linear.out_features, linear.in_features)))


def _packable(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Every linear module but the head, with where it stands."""
    found = [(parent, *named) for parent in model.modules() for named in parent.named_children()]
    return [(parent, name, child) for parent, name, child in found if type(child) is nn.Linear and name != HEAD]


def pack(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two weights to a byte; a byte for each block's scale; the scales' mean, and the largest of each their blocks."""
    blocks = _in_blocks(weight.float().flatten(), BLOCK)
    scales = blocks.abs().amax(1)
    nibbles = _nearest(blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None], _table(weight.device))
    pairs = nibbles.view(-1, 2)
    mean = scales.mean()
    centred = _in_blocks(scales - mean, SCALES)
    largest = centred.abs().amax(1)
    bytes_ = _nearest(centred / largest.clamp_min(torch.finfo(torch.float32).tiny)[:, None], _dynamic(weight.device))
    return (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8), bytes_.view(-1)[: len(scales)], mean, largest


def unpack(packed: Tensor, bytes_: Tensor, mean: Tensor, largest: Tensor, shape: tuple[int, int]) -> Tensor:
    scales = _dynamic(packed.device)[bytes_.int()] * largest.repeat_interleave(SCALES)[: len(bytes_)] + mean
    blocks = _both(packed.device)[packed.int()].view(-1, BLOCK) * scales[:, None]
    return blocks.view(-1)[: shape[0] * shape[1]].view(shape)


def _in_blocks(flat: Tensor, size: int) -> Tensor:
    return F.pad(flat, (0, -len(flat) % size)).view(-1, size)


def _nearest(values: Tensor, table: Tensor) -> Tensor:
    return torch.bucketize(values, (table[:-1] + table[1:]) / 2).to(torch.uint8)


@cache
def _table(device: torch.device) -> Tensor:
    return torch.tensor(NF4, device=device)


@cache
def _both(device: torch.device) -> Tensor:
    """The two weights of each byte."""
    table = _table(device)
    return torch.stack([table.repeat_interleave(16), table.repeat(16)], 1)


@cache
def _dynamic(device: torch.device) -> Tensor:
    """256 numbers from -1 to 1 whose steps grow with them (arXiv 1511.04561), as bitsandbytes spaces them."""
    numbers = [0.0, 1.0]
    for exponent in range(7):
        bounds = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        means = 10 ** (exponent - 6) * ((bounds[:-1] + bounds[1:]) / 2)
        numbers += means.tolist() + (-means).tolist()
    return torch.tensor(sorted(numbers), device=device)
