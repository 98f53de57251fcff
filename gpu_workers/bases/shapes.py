"""What a base model's linear modules are called, and how large they are."""

from pathlib import Path

from safetensors import safe_open

from processors.training.settings import MODULES


def linear_shapes(base: Path) -> dict[str, tuple[int, int]]:
    """(out, in) of every module that an adapter may change, from the headers of its files alone."""
    found = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            for name in sorted(tensors.keys()):
                module = name.removesuffix(".weight")
                if name != module and module.rpartition(".")[2] in MODULES:
                    out, in_ = tensors.get_slice(name).get_shape()
                    found[module] = out, in_
    return found
