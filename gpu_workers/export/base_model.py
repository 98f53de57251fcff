"""A base model as a GGUF file in float32: its numbers, tokenizer and template, so that llama.cpp says what we say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gguf
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from gpu_workers.bases.chat import Chat
from gpu_workers.bases.files import BaseIdentity, Progress, name_of, silent
from gpu_workers.bases.identity import identify
from gpu_workers.bases.load import prepare
from gpu_workers.errors import ExportRefused
from gpu_workers.export import architecture, tokenizer
from gpu_workers.export.architecture import Architecture
from gpu_workers.export.gguf_file import OURS, TensorToWrite, gguf_file

_COMPUTED = "rotary_emb.inv_freq"
"""Older files hold what a model computes when it is loaded."""


def export_base(
    name_or_path: str, cache: Path, out: Path, progress: Progress = silent, name: str | None = None
) -> BaseIdentity:
    """Writes `out`; the same base gives the same bytes. Raises whatever would make it another base there."""
    folder = prepare(name_or_path, cache, progress)
    progress("read the base", 0, 1)
    identity = identify(name or name_of(name_or_path), folder, "float32")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    chat, it = chat_of(folder, config), Architecture.of(config)
    stored = sorted(_stored(folder, it, config.tie_word_embeddings))
    stored += [TensorToWrite.of(name, tensor) for name, tensor in architecture.made(config)]
    with gguf_file(out, it.name, stored, progress) as writer:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(identity.name)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_string(f"{OURS}base.sha256", identity.sha256)
        architecture.describe(writer, config)
        tokenizer.describe(writer, chat, config.vocab_size)
    return identity


def chat_of(folder: Path, config: Any) -> Chat:
    """As serving speaks with it."""
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokens.pad_token_id is None:
        tokens.pad_token = tokens.eos_token
    told = config
    if (folder / "generation_config.json").is_file():
        told = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return Chat.of(tokens, told.eos_token_id)


def _stored(folder: Path, it: Architecture, tied: bool) -> Iterator[TensorToWrite]:
    for file in sorted(folder.glob("*.safetensors")):
        tensors: Any = safe_open(file, "pt")
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            module, _, kind = name.rpartition(".")
            if name.endswith(_COMPUTED) or (tied and module == "lm_head"):
                continue
            if kind == "bias" and it.name != "llama":
                raise ExportRefused(f"{file}: {name} has no place in a GGUF file of architecture {it.name}.")
            shape = tensors.get_slice(name).get_shape()
            yield TensorToWrite(f"{it.place(module)}.{kind}", shape, partial(_read, tensors, name, it))


def _read(tensors: Any, name: str, it: Architecture) -> Tensor:
    return it.rows(name.rpartition(".")[0], tensors.get_tensor(name))
