"""Base models: from a folder or a packaged name to a model, its tokenizer and what it is."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from gpu_workers.bases.device import Device
from gpu_workers.bases.files import (
    BaseIdentity,
    Progress,
    find,
    name_of,
    silent,
    unreadable,
)
from gpu_workers.bases.gguf import converted
from gpu_workers.bases.identity import identify as whole_identity

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase, BaseIdentity]


def load(
    name_or_path: str,
    cache: Path,
    device: Device | None = None,
    progress: Progress = silent,
    name: str | None = None,
) -> Loaded:
    """Never touches the network and never runs code that comes with a model."""
    quiet()
    device = device or Device.best()
    folder = prepare(name_or_path, cache, progress)
    identity = identify(name or name_of(name_or_path), folder, device)
    model, tokenizer = _read(folder, device)
    return model.to(device.kind).eval().requires_grad_(False), tokenizer, identity


def _read(folder: Path, device: Device) -> tuple[Any, PreTrainedTokenizerBase]:
    """What the libraries cannot read is named by its folder: the operator must look, and no request is to blame."""
    safe: Any = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=device.torch_dtype, use_safetensors=True, **safe
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, f"{type(error).__name__}: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
    model.generation_config.do_sample = False
    return model, tokenizer


def prepare(name_or_path: str, cache: Path, progress: Progress = silent) -> Path:
    """The safetensors folder of a base model; converts a packaged one at its first use."""
    quiet()
    found = find(name_or_path)
    return found if found.is_dir() else converted(found, cache, progress)


def identify(name: str, folder: Path, device: Device) -> BaseIdentity:
    return whole_identity(name, folder, str(device.torch_dtype)[6:])


def quiet() -> None:
    """Our own lines say what goes on; theirs would tear them apart."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
