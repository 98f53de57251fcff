"""A frozen linear module, in the form that this machine multiplies by fastest."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

USUAL_TOKENS = 32
"""The weights are laid out for products with about so many."""
CLOSE = 1e-3


class Linear:
    """Frozen: what it was made from may change or go."""

    def __init__(self, module: Any, name: str) -> None:
        self.name = name
        self.shape: tuple[int, int] = (module.out_features, module.in_features)
        self.norm, self.bias_norm = norms(module)
        self._times: Callable[[Tensor], Tensor] = packed(module) or plain(module)

    def __call__(self, x: Tensor) -> Tensor:
        return self._times(x)


def norms(module: Any) -> tuple[float, float]:
    """No product with it is longer than what it is given times the first, plus the second. Infinite: who knows."""
    if type(module) is not torch.nn.Linear:
        return math.inf, math.inf
    sides = [side.detach() for side in (module.weight, module.bias) if side is not None]
    weight, *bias = [float(torch.linalg.vector_norm(side, dtype=torch.float32)) for side in sides]
    return weight, sum(bias)


def plain(module: Any) -> Callable[[Tensor], Tensor]:
    weight, bias = module.weight, module.bias
    return lambda x: F.linear(x, weight, bias)


def packed(module: Any) -> Callable[[Tensor], Tensor] | None:
    """On a CPU a product of few tokens mostly lays out the weights: here that is done once, and not at each step.

    None: not on this device, or not by this torch, whose operators for that are its compiler's and may change.
    """
    if type(module) is not torch.nn.Linear or module.weight.device.type != "cpu":
        return None
    try:
        weight, bias = module.weight.detach(), module.bias
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, USUAL_TOKENS)

        def times(x: Tensor) -> Tensor:
            return torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")  # type: ignore[no-any-return]

        probe = torch.linspace(-1, 1, weight.shape[1], dtype=weight.dtype).expand(2, -1).contiguous()
        exact = F.linear(probe, weight, bias)
        agrees = torch.allclose(times(probe), exact, rtol=CLOSE, atol=CLOSE * float(exact.abs().max()))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return times if agrees else None
