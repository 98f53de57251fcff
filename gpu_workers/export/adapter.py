"""An adapter as files of others: PEFT's folder, byte for byte, or a GGUF file that llama.cpp loads beside its base."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gguf
from torch import Tensor
from transformers import AutoConfig

from gpu_workers.adapters.check import check_adapter, shapes_of
from gpu_workers.adapters.config import AdapterConfig
from gpu_workers.adapters.origin import base_of
from gpu_workers.adapters.store import FILES, MANIFEST, TENSORS, must_hold_files, verify
from gpu_workers.adapters.weights import read_matrices
from gpu_workers.bases.files import BaseIdentity, Progress, file_sha256, name_of, silent
from gpu_workers.bases.identity import identify
from gpu_workers.bases.load import prepare
from gpu_workers.bases.shapes import linear_shapes
from gpu_workers.errors import ExportRefused
from gpu_workers.export.architecture import Architecture
from gpu_workers.export.gguf_file import OURS, TensorToWrite, gguf_file
from gpu_workers.export.whole import whole

GGUF = "adapter.gguf"
EARLY = 1
"""llama.cpp switches an activated adapter on one token before the invocation that it finds: PEFT and we, at its first.
So it is told to find what follows the first, and both do the same."""


class AdapterOrigin(NamedTuple):
    """What a file says of where its adapter comes from."""

    name: str = ""
    """company/role@version"""
    dataset_sha256: str = ""
    """Of the manifest of the rows that it was trained on."""


class ReadyBase(NamedTuple):
    """A base's folder, and what names it. `named`: somebody said that it is to be this one."""

    folder: Path
    identity: BaseIdentity
    named: bool = False

    @classmethod
    def of(cls, name: str, where: str, cache: Path, progress: Progress = silent, *, named: bool = False) -> ReadyBase:
        folder = prepare(where, cache, progress)
        return cls(folder, identify(name_of(name), folder, "float32"), named)


def export_peft(folder: Path, out: Path) -> list[Path]:
    """The folder that PEFT, vLLM and others read: the very bytes that were trained, with our manifest beside them."""
    sha256 = _checked(folder)
    names = [*FILES, MANIFEST] if sha256 else list(FILES)
    for name in names:
        if (there := out / name).exists() and file_sha256(there) != file_sha256(folder / name):
            raise ExportRefused(f"{there}: is of another adapter. Give another folder, or take it away.")
    for name in reversed(names):  # the configuration last: without it, a folder is no adapter yet
        with whole(out / name) as draft:
            shutil.copyfile(folder / name, draft)
    return [out / name for name in names]


def export_gguf(folder: Path, base: ReadyBase, out: Path, origin: AdapterOrigin | None = None) -> Path:
    """Writes `out`; the same adapter gives the same bytes. Raises whatever would make it another adapter there."""
    sha256 = _checked(folder)
    config = check_adapter(folder)
    _must_be_of(folder, base)
    model = AutoConfig.from_pretrained(base.folder, local_files_only=True)
    _must_fit(folder, config, linear_shapes(base.folder), model.vocab_size)
    it = Architecture.of(model)
    alpha, matrices = _matrices(folder, config)
    tensors = [TensorToWrite.of(name, tensor) for name, tensor in _placed(matrices, it)]
    with gguf_file(out, it.name, tensors) as writer:
        _describe(writer, origin or AdapterOrigin(), base.identity)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        if config.activation is not None:
            _tokens(writer, gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS, config.activation[EARLY:])
            _tokens(writer, f"{OURS}adapter.invocation_tokens", config.activation)
        if sha256:
            writer.add_string(f"{OURS}adapter.sha256", sha256)
        writer.add_string(f"{OURS}adapter.tensors.sha256", file_sha256(folder / TENSORS))
    return out


def _describe(writer: gguf.GGUFWriter, origin: AdapterOrigin, base: BaseIdentity) -> None:
    writer.add_type(gguf.GGUFType.ADAPTER)
    if origin.name:
        writer.add_name(origin.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, base.name)
    writer.add_string(f"{OURS}base.sha256", base.sha256)
    if origin.dataset_sha256:
        writer.add_string(f"{OURS}dataset.sha256", origin.dataset_sha256)


def _tokens(writer: gguf.GGUFWriter, key: str, tokens: Sequence[int]) -> None:
    writer.add_key_value(key, list(tokens), gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.UINT32)


def _checked(folder: Path) -> str:
    """The hash of an artifact of a store, all of whose bytes are its own; of another folder none."""
    must_hold_files(folder)
    if not (folder / MANIFEST).is_file():
        return ""
    sha256 = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    verify(folder, sha256)
    return sha256


def _must_be_of(folder: Path, base: ReadyBase) -> None:
    trained_on, it = base_of(folder), base.identity
    if trained_on in (None, it.sha256, it.weights_sha256):
        return
    four_bits = it.quantised()
    if trained_on not in (four_bits.sha256, four_bits.weights_sha256):
        raise ExportRefused(
            f"adapter {folder}: was trained on base {trained_on}, and {it.name} is {it.sha256}. Name its own."
        )
    if not base.named:
        raise ExportRefused(
            f"adapter {folder}: was trained on {four_bits.name}, this base held in four bits, and a GGUF file of it is "
            f"in float32: it would answer otherwise. Name the base, --base {it.name}, to have it all the same."
        )


def _must_fit(folder: Path, config: AdapterConfig, there: Mapping[str, tuple[int, int]], vocabulary: int) -> None:
    """Every matrix has a place in the base: llama.cpp would say no more than that it failed to load it."""
    for module, (out, in_) in shapes_of(folder / TENSORS).items():
        if there.get(module) != (out, in_):
            raise ExportRefused(
                f"adapter {folder}: {module} of {out} x {in_} has no place in this base model, which has "
                f"{there.get(module, 'no such module')} there. Name the base that it was trained on."
            )
    if config.activation is not None and len(config.activation) <= EARLY:
        raise ExportRefused(
            f"adapter {folder}: is switched on by one token alone, and llama.cpp would switch it on one too early. "
            "Train it with an invocation of two tokens or more."
        )
    if strays := [token for token in config.activation or () if token >= vocabulary]:
        raise ExportRefused(
            f"adapter {folder}: is switched on by token {strays[0]}, and this base has {vocabulary} of them. "
            "Name the base that it was trained on."
        )


def _matrices(folder: Path, config: AdapterConfig) -> tuple[float, Mapping[str, tuple[Tensor, Tensor]]]:
    """llama.cpp divides one alpha by each module's own rank. It is the alpha that suits most modules, whose matrices
    stay as they are; what others have more or less of it is in their B."""
    found = read_matrices(folder, config)
    strengths = {module: config.scale_of(module) * a.shape[0] for module, (a, _) in found.items()}
    alpha = Counter(strengths.values()).most_common(1)[0][0]
    matrices = {module: (a.float(), b.float() * (strengths[module] / alpha)) for module, (a, b) in found.items()}
    return alpha, matrices


def _placed(matrices: Mapping[str, tuple[Tensor, Tensor]], it: Architecture) -> Iterator[tuple[str, Tensor]]:
    for module, (a, b) in matrices.items():
        yield f"{it.place(module)}.weight.lora_a", a
        yield f"{it.place(module)}.weight.lora_b", it.rows(module, b)
