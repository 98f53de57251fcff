"""A GGUF file, whole or not at all. Nothing in it says when, where or by whom it was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import GGUFWriter
from torch import Tensor

from gpu_workers.adapters.weights import is_finite
from gpu_workers.bases.files import Progress, silent
from gpu_workers.errors import ExportRefused
from gpu_workers.export.whole import whole

OURS = "rillfold."
"""Keys that are ours begin so; others read over them."""


class TensorToWrite(NamedTuple):
    """A tensor of the file, read when it is written: a model need not fit into memory twice."""

    name: str
    shape: Sequence[int]
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> TensorToWrite:
        """One that is in memory already."""
        return cls(name, tensor.shape, lambda: tensor)


@contextmanager
def gguf_file(
    path: Path, architecture: str, tensors: Sequence[TensorToWrite], progress: Progress = silent
) -> Iterator[GGUFWriter]:
    """Say what the file is; the tensors are written after that, in float32."""
    with whole(path) as draft:
        writer = GGUFWriter(draft, architecture)
        yield writer
        for each in tensors:
            writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), 4 * math.prod(each.shape))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, each in enumerate(tensors):
                progress(f"write {path.name}", done, len(tensors))
                writer.write_tensor_data(_finite(path, each).numpy())
        finally:
            writer.close()
    progress("written", len(tensors), len(tensors))


def _finite(path: Path, stored: TensorToWrite) -> Tensor:
    tensor = stored.read().float().contiguous()
    if not is_finite(tensor):
        raise ExportRefused(f"{path}: {stored.name} holds numbers that are not finite in float32. It is not written.")
    return tensor
