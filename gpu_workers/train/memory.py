"""How much memory a run would take of this machine, as far as files and sizes tell. No torch: the worker has none."""

import ctypes
import json
from collections.abc import Mapping
from typing import Any

from gpu_workers.bases.files import find
from gpu_workers.bases.host import host_memory
from gpu_workers.errors import BaseModelMissing
from processors.training.room import Shape

DRIVER = "libcuda.so.1"


def shape_of(base_model: str) -> Shape | None:
    """By its config.json. None: it is packaged in one file, which is small, or is not to be read: others say so."""
    try:
        folder = find(base_model)
        config = json.loads((folder / "config.json").read_text())
        return _shape(config)
    except (BaseModelMissing, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _shape(config: Mapping[str, Any]) -> Shape:
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    return Shape(
        hidden=hidden,
        layers=int(config["num_hidden_layers"]),
        inner=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        attention=heads * int(config.get("head_dim") or hidden // heads),
        shared=int(config.get("num_key_value_heads") or heads) * int(config.get("head_dim") or hidden // heads),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def device_memory() -> tuple[int, bool]:
    """Bytes of the first GPU that this process may use, and True; else those of the machine or its container."""
    on_gpu = _gpu_memory()
    return (on_gpu, True) if on_gpu else (host_memory(), False)


def _gpu_memory() -> int | None:
    """From the driver itself. Nothing is taken of the card for it; the child that trains has it for itself."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    device, total = ctypes.c_int(), ctypes.c_size_t()
    asked = (
        (driver.cuInit, (0,)),
        (driver.cuDeviceGet, (ctypes.byref(device), 0)),
    )
    if any(call(*arguments) for call, arguments in asked):
        return None
    return None if driver.cuDeviceTotalMem_v2(ctypes.byref(total), device) else total.value
