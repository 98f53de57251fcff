"""Is this file an adapter, and nothing but an adapter? Headers are parsed here, before any library sees the file."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_workers.adapters.config import MAX_RANK, AdapterConfig, read_config, unique
from gpu_workers.errors import ArtifactRefused
from processors.training.settings import MODULES

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAX_HEADER = 4 << 20
# dtype -> (bytes, bits of the exponent: all set means infinite or not a number)
DTYPES = {"F32": (4, 0x7F80_0000), "F16": (2, 0x7C00), "BF16": (2, 0x7F80)}
NAME = re.compile(
    r"base_model\.model\.(?P<module>model\.layers\.\d{1,4}\.(?:self_attn|mlp)\."
    rf"(?:{'|'.join(MODULES)}))\.(?P<side>lora_A|lora_B|lora_E)(?P<ending>\.weight)?"
)
LORA, ADALORA = {"lora_A.weight", "lora_B.weight"}, {"lora_A", "lora_B", "lora_E"}
"""How PEFT calls the tensors of one module."""
RANK_IN = {"lora_A": 0, "lora_B": 1, "lora_E": 0}
"""Which side of the shape is the rank."""
DORA = "lora_magnitude_vector"
Header = Mapping[str, Mapping[str, Any]]


def check_adapter(folder: Path, values: bool = True) -> AdapterConfig:
    """The one answer to whether a folder's adapter can be kept and served. Raises ArtifactRefused.

    Who looks at every value of what it loads asks without `values`: reading them all twice is half of a load.
    """
    config = read_config(folder / CONFIG)
    path = folder / TENSORS
    header = check_tensors(path, values)
    for name, entry in header.items():
        _check_told(path, name, entry["shape"], config)
    if not any(config.rank_of(place_of(name)[0]) for name in header):
        pruned = sorted({place_of(name)[0] for name in header})
        raise ArtifactRefused(
            f"{path}: every matrix was pruned to rank 0, so it does nothing: {', '.join(pruned)!s:.200}. "
            "Train it with a larger target_r."
        )
    return config


def _check_told(path: Path, name: str, shape: Sequence[int], config: AdapterConfig) -> None:
    """The configuration tells of this tensor, in every respect."""
    module, side = place_of(name)
    rank = shape[RANK_IN[side]]
    if name.endswith(".weight") == config.adalora:
        raise ArtifactRefused(f"{path}: {name} is no tensor of the configuration's peft_type.")
    if not config.names(module):
        raise ArtifactRefused(f"{path}: {name} is not named by the configuration's target_modules and layers.")
    if rank != config.rank_of(module):
        raise ArtifactRefused(f"{path}: {name} has rank {rank}, its configuration says {config.rank_of(module)}.")


def check_tensors(path: Path, values: bool = True) -> Header:
    """Names, types, shapes, places and values of every tensor."""
    header, data_at = _described(path)
    size = path.stat().st_size - data_at
    expected = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != expected:
            raise ArtifactRefused(f"{path}: {name} begins at {start}, the one before it ends at {expected}.")
        if values:
            _check_finite(path, name, entry["dtype"], data_at + start, stop - start)
        expected = stop
    if expected > size:
        raise ArtifactRefused(f"{path}: ends {expected - size} bytes too early. Copy it whole.")
    if expected < size:
        raise ArtifactRefused(f"{path}: {size - expected} bytes belong to no tensor.")
    return header


def shapes_of(path: Path) -> Mapping[str, tuple[int, int]]:
    """(out, in) of each module that it changes, from the header alone: no tensor is read."""
    header, _ = _described(path)
    shapes = {place_of(name): entry["shape"] for name, entry in header.items()}
    return {module: (shapes[module, "lora_B"][0], shapes[module, "lora_A"][1]) for module, _ in shapes}


def place_of(name: str) -> tuple[str, str]:
    """Module and side, lora_A, lora_B or lora_E, of a tensor whose name was checked."""
    match = NAME.fullmatch(name)
    assert match is not None
    return match["module"], match["side"]


def _described(path: Path) -> tuple[Header, int]:
    """The header, all of whose tensors have a place in an adapter, and where the data begins."""
    header, data_at = _header(path)
    tensors: dict[str, set[str]] = {}
    for name, entry in header.items():
        match = _check_one(path, name, entry)
        tensors.setdefault(match["module"], set()).add(match["side"] + (match["ending"] or ""))
    for module, there in tensors.items():
        if there not in (LORA, ADALORA):
            absent = sorted(f"base_model.model.{module}.{one}" for one in (LORA if there & LORA else ADALORA) - there)
            raise ArtifactRefused(f"{path}: {module} has no {' and no '.join(absent) or 'one kind of tensors'}.")
    return header, data_at


def _header(path: Path) -> tuple[Header, int]:
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        size = path.stat().st_size
        if 2 <= length <= MAX_HEADER and length > size - 8:
            raise ArtifactRefused(f"{path}: ends within its header. Copy it whole.")
        if not 2 <= length <= MAX_HEADER:
            raise ArtifactRefused(f"{path}: a header of {length} bytes cannot be: it is no file of safetensors.")
        text = handle.read(length)
    try:
        header = json.loads(text, object_pairs_hook=unique)
        header.pop("__metadata__", None)
        for entry in header.values():
            _check_entry(entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactRefused(f"{path}: the header is not one of safetensors: {error!r:.200}.") from error
    if not header:
        raise ArtifactRefused(f"{path}: no tensors in it.")
    return header, 8 + length


def _check_entry(entry: Mapping[str, Any]) -> None:
    start, stop = entry["data_offsets"]
    if set(entry) != {"dtype", "shape", "data_offsets"} or not isinstance(entry["dtype"], str):
        raise ValueError(f"a tensor is described by {sorted(entry)}")
    if any(type(n) is not int for n in (start, stop, *entry["shape"])) or not 0 <= start <= stop:
        raise ValueError("a tensor's shape and place are no whole numbers")


def _check_one(path: Path, name: str, entry: Mapping[str, Any]) -> re.Match[str]:
    match = NAME.fullmatch(name)
    dtype, shape = entry["dtype"], entry["shape"]
    if match is None and DORA in name:
        raise ArtifactRefused(f"{path}: {name:.200} is DoRA's, which is not computed here. Train it without use_dora.")
    if match is None or dtype not in DTYPES or len(shape) != 2:
        raise ArtifactRefused(
            f"{path}: {name:.200} of type {dtype:.20} and shape {shape!s:.80} has no place in an adapter."
        )
    rank, width = shape if RANK_IN[match["side"]] == 0 else reversed(shape)
    fewest = 1 if match["ending"] else 0
    if not fewest <= rank <= MAX_RANK or width < 1:
        raise ArtifactRefused(f"{path}: {name} has rank {rank}; allowed are {fewest} to {MAX_RANK}.")
    if match["side"] == "lora_E" and width != 1:
        raise ArtifactRefused(f"{path}: {name} has {width} columns, and one number for each rank is due.")
    start, stop = entry["data_offsets"]
    if shape[0] * shape[1] * DTYPES[dtype][0] != stop - start:
        raise ArtifactRefused(f"{path}: {name} has {stop - start} bytes, its shape {shape} says otherwise.")
    return match


def _check_finite(path: Path, name: str, dtype: str, start: int, length: int) -> None:
    import numpy as np  # whoever only asks for adapters runs without it

    if length == 0:
        return
    width, exponent = DTYPES[dtype]
    bits = np.fromfile(path, dtype=f"<u{width}", count=length // width, offset=start)
    if len(bits) != length // width or bool(np.any((bits & exponent) == exponent)):
        raise ArtifactRefused(f"{path}: {name} holds numbers that are not finite, or too few of them.")
