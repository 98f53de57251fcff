"""A GGUF file becomes a safetensors folder, once for each content hash, whoever asks first."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gguf as gguf_library
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpu_workers.bases.files import Progress, file_sha256

_STEPS = 4


def converted(gguf: Path, cache: Path, progress: Progress) -> Path:
    """The folder of a GGUF file's content hash. Two processes at once convert once."""
    progress(f"hash {gguf.name}", 0, _STEPS)
    folder = cache / "models" / file_sha256(gguf)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(folder.with_suffix(".lock")):
        if not folder.is_dir():
            draft = Path(mkdtemp(prefix=f".{folder.name[:12]}-", dir=folder.parent))
            try:
                with _header_read_once():
                    _convert(gguf, draft, progress)
                draft.chmod(0o755)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    progress("converted", _STEPS, _STEPS)
    return folder


def _convert(gguf: Path, out: Path, progress: Progress) -> None:
    """The loaded model calls itself quantised and refuses to be saved: so its plain tensors are."""
    place: Any = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "local_files_only": True}
    progress("convert the tokenizer", 1, _STEPS)
    tokenizer = AutoTokenizer.from_pretrained(**place, clean_up_tokenization_spaces=False)
    progress("convert the weights", 2, _STEPS)
    with redirect_stderr(StringIO()):  # a bar that heeds no setting
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    progress("save as safetensors", 3, _STEPS)
    # The file's own metadata names the wrong token as the end of a turn; the model's config has the right one.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(out)
    del model.config.quantization_config
    model.config.save_pretrained(out)
    tied = model.config.tie_word_embeddings
    tensors = {
        name: tensor.contiguous()
        for name, tensor in sorted(model.state_dict().items())
        if not (tied and name == "lm_head.weight")
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


@contextmanager
def _header_read_once() -> Iterator[None]:
    """Transformers reads the header four times, and makes a table of names for each tensor: 14 of 22 seconds."""
    reader, names = gguf_library.GGUFReader, gguf_library.get_tensor_name_map
    library: Any = gguf_library
    library.GGUFReader, library.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = reader, names


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
