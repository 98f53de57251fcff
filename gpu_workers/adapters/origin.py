"""What a folder itself says of where its adapter comes from: an artifact's manifest, or the base that PEFT names."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from gpu_workers.adapters.check import CONFIG
from gpu_workers.adapters.config import MAX_CONFIG
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.store import MANIFEST, MAX_BYTES, ArtifactManifest, Facts, verify
from gpu_workers.bases.files import folder_sha256, identity_files


class _Named(msgspec.Struct):
    base_model_name_or_path: str | None = None


def fetched(store: AdapterStore, sha256: str, company: str) -> tuple[Path, Facts]:
    """The artifact that a row of the log names, whole, and of the row's own company: its hash could be anybody's."""
    folder = store.place(sha256)
    return folder, verify(folder, sha256, company)


def facts_in(folder: Path) -> Facts | None:
    """Of an artifact of a store; other folders have none."""
    with suppress(OSError), (folder / MANIFEST).open("rb") as file:
        return facts_said(file.read(MAX_BYTES[MANIFEST]))
    return None


def facts_said(manifest: bytes) -> Facts | None:
    with suppress(ValueError):
        return msgspec.json.decode(manifest, type=ArtifactManifest).facts
    return None


def base_of(folder: Path) -> str | None:
    """The hash of the base that it was trained on: as its manifest says, or of the folder of this machine that its
    configuration names. None where neither tells: then its shapes decide."""
    if (facts := facts_in(folder)) is not None:
        return facts.base_sha256
    with suppress(OSError, ValueError):
        with (folder / CONFIG).open("rb") as file:
            named = msgspec.json.decode(file.read(MAX_CONFIG), type=_Named).base_model_name_or_path
        if named and (Path(named) / "config.json").is_file():
            files = identity_files(Path(named))
            return _hash_of(Path(named).absolute(), max(each.stat().st_mtime_ns for each in files))
    return None


@cache
def _hash_of(base: Path, _written: int) -> str:
    return folder_sha256(base)
