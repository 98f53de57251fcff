"""What names a base model: all of it that decides what is said. Never its folder, nor which library wrote its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_workers.bases.files import BaseIdentity, Progress, check_folder, folder_sha256, json_in, silent, unreadable

_SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PASSING = {
    "transformers_version", "_name_or_path", "_model_name_or_path", "name_or_path", "tokenizer_file",
    "special_tokens_map_file", "tokenizer_class", "backend", "is_local", "local_files_only", "use_cache",
    "torch_dtype", "dtype", "chat_template",
}  # fmt: skip
"""What libraries note about themselves, and what is named by another part of the identity."""
_TEMPLATE = "chat_template.jinja"


def identify(name: str, folder: Path, dtype: str, progress: Progress = silent) -> BaseIdentity:
    """Reads all of its weights."""
    family, weights, template = check_folder(folder), folder_sha256(folder, progress), _template_of(folder)
    facts = {
        "weights": weights,
        "settings": {file: _lasting(json_in(folder, file)) for file in _SETTINGS if (folder / file).is_file()},
        "ends": _ends(folder),
        "template": template,
    }
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return BaseIdentity(
        name=name, family=family, sha256=whole, weights_sha256=weights, template_sha256=template, dtype=dtype
    )


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _PASSING}


def _ends(folder: Path) -> object:
    generation = folder / "generation_config.json"
    return json_in(folder, generation.name).get("eos_token_id") if generation.is_file() else None


def _template_of(folder: Path) -> str:
    """Its file comes first where it has one, as for those who load it."""
    if (folder / _TEMPLATE).is_file():
        try:
            text: object = (folder / _TEMPLATE).read_text()
        except (OSError, ValueError) as error:
            raise unreadable(folder, f"{_TEMPLATE}: {error}") from error
    else:
        config = folder / "tokenizer_config.json"
        text = json_in(folder, config.name).get("chat_template") if config.is_file() else None
    if not text:
        return ""
    told = text if isinstance(text, str) else json.dumps(text, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
