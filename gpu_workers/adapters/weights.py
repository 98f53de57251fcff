"""A PEFT adapter folder as plain pairs of matrices, with the scale folded into B."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from gpu_workers.adapters.check import TENSORS, check_adapter, place_of
from gpu_workers.adapters.config import AdapterConfig
from gpu_workers.errors import ArtifactRefused
from gpu_workers.refused import UnusableAdapter


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One adapter in memory; equal only to itself, so that a newer one of the same name can never pass for it.

    `pairs[module]` is (A[r, in], B[out, r]) with the scale inside B; ranks may differ between modules.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    rank: int
    activation: tuple[int, ...] | None = None
    """The tokens that switch it on: applied from their last occurrence on, and to nothing before. None: to all."""
    content: Hashable = field(default_factory=object)
    """What KV under it is keyed by: the artifact's hash, or else this very reading of a folder."""

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for pair in self.pairs.values() for tensor in pair)


def read_adapter(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", content: Hashable = None
) -> LoraWeights:
    """Raises UnusableAdapter for whatever could not be served exactly as PEFT would."""
    try:
        config = check_adapter(folder, values=False)
    except ArtifactRefused as error:
        raise UnusableAdapter(f"{error} Publish it again.") from error
    pairs = {
        module: (a.to(device, dtype), (b.to(torch.float32) * config.scale_of(module)).to(device, dtype))
        for module, (a, b) in read_matrices(folder, config).items()
    }
    for module, pair in pairs.items():
        if not all(is_finite(tensor) for tensor in pair):
            raise UnusableAdapter(f"{folder}: {module} is not finite with its scale as {dtype}. Train it again.")
    rank = max(a.shape[0] for a, _ in pairs.values())
    return LoraWeights(pairs, rank, config.activation, object() if content is None else content)


def read_matrices(folder: Path, config: AdapterConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) of each module in order, without its scale; AdaLoRA's singular values are folded into A, in float32, and
    what was pruned to nothing is left out."""
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load((folder / TENSORS).read_bytes()).items():  # not mapped: a file can be cut short under it
        module, side = place_of(name)
        sides.setdefault(module, {})[side] = tensor
    return {module: _pair(side) for module, side in sorted(sides.items()) if config.rank_of(module)}


def _pair(side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    a = side["lora_A"]
    if "lora_E" in side:
        a = a.to(torch.float32) * side["lora_E"].to(torch.float32)
    return a, side["lora_B"]


def is_finite(tensor: Tensor) -> bool:
    """Told by its least and its largest number, which are none where one of them is none."""
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())
