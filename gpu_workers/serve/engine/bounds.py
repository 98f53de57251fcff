"""Bounds that prove an adapter finite with every prompt, and run none.

A norm before a module makes its input no longer than the norm's weight allows, whatever came before; a product is no
longer than the norms of its factors multiplied. So what one layer can add is bounded by its own matrices alone, and
nothing grows from layer to layer but by addition.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.serve.engine.decoder import Decoder, Layer
from gpu_workers.serve.engine.linear import Linear

ROOM = 1e3
"""For what rounding, rotation and a mean's own sums add."""

Norms = Mapping[str, tuple[float, float]]
"""Of A and B, by module."""


class FiniteBounds:
    """Of one base model. They say yes or nothing: what they cannot prove may be finite still."""

    def __init__(self, decoder: Decoder) -> None:
        self._layers = decoder.layers
        self._heads, self._width = decoder.heads, decoder.embedding.shape[1]
        self._embedded = float(torch.linalg.vector_norm(decoder.embedding.detach().float(), dim=1).max())
        # squares and products of two that are below it are numbers of this type
        self._most = math.sqrt(torch.finfo(decoder.embedding.dtype).max) / ROOM

    def prove(self, weights: LoraWeights) -> bool:
        norms = _norms(weights)
        stream = self._embedded
        for layer in self._layers:
            stream += self._attention(layer, norms) + self._mlp(layer, norms)
        return stream <= self._most

    def _attention(self, layer: Layer, norms: Norms) -> float:
        seen = self._normed(layer.norm_in)
        q, k, v = (self._times(linear, seen, norms) for linear in layer.qkv.linears)
        if max(q, k) > self._most:  # their products are what the softmax reads
            return math.inf
        return self._times(layer.o.linears[0], math.sqrt(self._heads) * v, norms)

    def _mlp(self, layer: Layer, norms: Norms) -> float:
        seen = self._normed(layer.norm_mlp)
        gate, up = (self._times(linear, seen, norms) for linear in layer.gate_up.linears)
        return self._times(layer.down.linears[0], gate * up, norms)

    def _normed(self, weight: Tensor) -> float:
        return float(weight.detach().abs().max()) * math.sqrt(self._width)

    def _times(self, linear: Linear, longest: float, norms: Norms) -> float:
        """How long what leaves the module can be; infinite where something on the way is beyond all bounds."""
        a, b = norms.get(linear.name, (0.0, 0.0))
        most = max(longest, longest * a, longest * (linear.norm + a * b) + linear.bias_norm)
        return most if most <= self._most else math.inf


def _norms(weights: LoraWeights) -> Norms:
    """Asked of the device at once. A sum of squares that overflows is infinite, which proves nothing."""
    sides = [side for pair in weights.pairs.values() for side in pair]
    found = torch.stack([torch.linalg.vector_norm(side.detach(), dtype=torch.float32) for side in sides]).tolist()
    return dict(zip(weights.pairs, zip(found[::2], found[1::2], strict=True), strict=True))
