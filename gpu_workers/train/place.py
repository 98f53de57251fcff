"""Where a training worker runs: its folders, and the base models of its operator."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_workers.bases.files import find
from gpu_workers.errors import BaseModelMissing, Unhealthy
from processors.admit import Bounds, shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    worker: str
    scratch: Path
    cache: Path
    threads: int
    clock: Callable[[], int]
    bases: Mapping[str, str]
    """Name -> packaged name or folder. Requests say the name; only the operator says where."""
    bounds: Bounds = field(default_factory=Bounds)

    def why_missing(self, base_model: str) -> str | None:
        """Why a request cannot have this base model. Where the operator keeps it is nobody else's business."""
        if base_model not in self.bases:
            known = ", ".join(self.bases)
            return f"base model {shown(base_model)} is not on this worker's list (RILLFOLD_BASE_MODELS): {known}."
        try:
            find(self.bases[base_model])
        except BaseModelMissing as error:
            log.error("base model %s of RILLFOLD_BASE_MODELS cannot be had: %s", base_model, error)
            return f"base model {base_model!r} is on the list, and is not to be had here: the operator must look."
        return None

    def empty_folder(self, company: str, run: str) -> Path:
        """Named by hash: no word of a request is ever part of a path. What a crashed run left there is of no use."""
        folder = self.scratch / hashlib.sha256(f"{company}/{run}".encode()).hexdigest()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            (folder / "out").mkdir(parents=True)
        except OSError as error:
            raise Unhealthy(f"No folder for a run can be made in {self.scratch}: {error}. Make room there.") from error
        return folder
