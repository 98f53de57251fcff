"""Where a training worker runs: its folders, and the base models of its operator."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_workers.bases.files import look
from gpu_workers.errors import BaseModelMissing, BaseModelRefused, Unhealthy
from processors.training.admit import RunBounds, shown
from processors.training.promotion import GateFloors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    worker: str
    scratch: Path
    cache: Path
    threads: int
    clock: Callable[[], int]
    bases: Mapping[str, str]
    """Name -> packaged name or folder. Requests say the name; only the operator says where."""
    bounds: RunBounds = field(default_factory=RunBounds)
    floors: GateFloors = field(default_factory=GateFloors)

    def check_bases(self) -> None:
        """At the start, before a request meets it: names each base model of the list that is not to be had, and raises
        where none is."""
        broken: list[str] = []
        for name, where in self.bases.items():
            try:
                look(where)
            except (BaseModelMissing, BaseModelRefused) as error:
                broken.append(f"{name} at {where}: {error}")
        if self.bases and len(broken) == len(self.bases):
            raise BaseModelMissing(f"No base model of RILLFOLD_BASE_MODELS can be had here. {' '.join(broken)}")
        for what in broken:
            log.warning("Base model %s Until then its requests are refused here; the others are trained.", what)

    def why_missing(self, base_model: str) -> str | None:
        """Why a request cannot have this base model. Where the operator keeps it is nobody else's business."""
        if base_model not in self.bases:
            known = ", ".join(self.bases)
            return f"base model {shown(base_model)} is not on this worker's list (RILLFOLD_BASE_MODELS): {known}."
        try:
            look(self.bases[base_model])
        except (BaseModelMissing, BaseModelRefused) as error:
            return self.not_to_be_had(base_model, str(error))
        return None

    def not_to_be_had(self, base_model: str, why: str) -> str:
        """The operator's log has the reason and the folder; the company is told that it is not its fault."""
        log.error("base model %s of RILLFOLD_BASE_MODELS cannot be had: %s", base_model, why)
        return f"base model {base_model!r} is on the list, and is not to be had here: the operator must look."

    def empty_folder(self, company: str, run: str) -> Path:
        """Named by hash: no word of a request is ever part of a path. What a crashed run left there is of no use."""
        return self._empty(hashlib.sha256(f"{company}/{run}".encode()).hexdigest())

    def proof_folder(self) -> Path:
        """For a tiny run of this worker's own, where those of requests are."""
        return self._empty(f"proof-{hashlib.sha256(self.worker.encode()).hexdigest()[:16]}")

    def _empty(self, name: str) -> Path:
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            (folder / "out").mkdir(parents=True)
        except OSError as error:
            raise Unhealthy(f"No folder for a run can be made in {self.scratch}: {error}. Make room there.") from error
        return folder
