"""Adapters that mallory trained, so to say: files in the store that are odd in one way, each said to be ready."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gpu_workers.adapters.store import Facts
from gpu_workers.errors import ArtifactRefused
from schemas.adapters import AdapterReady
from schemas.envelope import derived_id
from tests.hostile.mallory.words import CORPUS, Line
from tests.hostile.stage import MALLORY, Stage
from tests.support.models import ALL, save_adapter

ODD: list[dict[str, Any]] = json.loads((CORPUS / "adapters.json").read_text())


def odd_adapters(stage: Stage) -> tuple[list[AdapterReady], list[Line]]:
    """What is said of them, and the questions that make the serving worker load each: by topic and by /v1."""
    said, asked = [], list[Line]()
    for n, odd in enumerate(ODD):
        name = f"{MALLORY}/odd-{n}"
        said.append(ready(stage, name, _stored(stage, n, odd)))
        turn = {"role": "user", "content": "Hi"}
        wishes = {"adapter": name, "max_tokens": 4}
        asked += [
            Line("adapters", f"{odd['name']} {i}", {"type": "inference.requested", "with": wishes}) for i in (1, 2)
        ]
        body = {"model": name, "messages": [turn], "max_tokens": 4}
        asked.append(Line("adapters", odd["name"], {"line": "POST /v1/chat/completions", "body": body}))
    return said, asked


def ready(stage: Stage, name: str, sha256: str, version: int = 1) -> AdapterReady:
    id_ = derived_id(f"{name}@{version}", sha256)
    return AdapterReady(
        id=id_, company=name.partition("/")[0], time=1, correlation=id_, adapter=name, adapter_version=version, run=id_,
        sha256=sha256, uri=f"sha256/{sha256}", method="lora", rank=8, alpha=16.0, base_model=stage.model,
        base_sha256=stage.bench.base_sha256, manifest=sha256, ranges=(), seed=0, identity='{"tools_in_prompt": false}',
    )  # fmt: skip


def _stored(stage: Stage, n: int, odd: Mapping[str, Any]) -> str:
    """The store may refuse it; then only its name is left to ask for."""
    folder = stage.root / "odd" / str(n)
    save_adapter(stage.bench.model, folder, n, r=8, lora_alpha=16, target_modules=ALL)
    (folder / "README.md").unlink()
    _weights(folder / "adapter_model.safetensors", odd)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | odd.get("config", {})).replace('"NaN"', "NaN"))
    facts = Facts(company=MALLORY, base_model=stage.model, base_sha256=stage.bench.base_sha256, tools_in_prompt=False)
    try:
        return str(stage.bench.store.put(folder, facts))
    except ArtifactRefused:
        return f"{n:064x}"


def _weights(file: Path, odd: Mapping[str, Any]) -> None:
    times, only = float(odd.get("times", 1.0)), odd.get("only", "")
    weights = {name: weight * (times if only in name else 1.0) for name, weight in load_file(file).items()}
    kind = getattr(torch, odd.get("dtype", "float32"))
    save_file({name: weight.to(kind).contiguous() for name, weight in weights.items()}, file)
