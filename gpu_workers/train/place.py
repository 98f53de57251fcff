"""Where a training worker runs: its folders, and the base models of its operator."""

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_workers.bases.files import look
from gpu_workers.errors import BaseModelMissing, BaseModelRefused, BaseNotServable, Unhealthy
from gpu_workers.train.memory import device_memory, shape_of
from processors.training.admit import NotAdmitted, RunBounds, shown
from processors.training.promotion import GateFloors
from processors.training.room import need, too_large
from processors.training.settings import TrainSettings

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoint-"
OF_A_RUN = re.compile(f"({CHECKPOINTS})?[0-9a-f]{{64}}")


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
    memory: Callable[[], tuple[int, bool]] = device_memory
    """Bytes of the device that trains, and whether it is a GPU."""

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

    def why_missing(self, base_model: str) -> str | NotAdmitted | None:
        """Why a request cannot have this base model. Where the operator keeps it is nobody else's business."""
        if base_model not in self.bases:
            known = ", ".join(self.bases)
            return f"base model {shown(base_model)} is not on this worker's list (RILLFOLD_BASE_MODELS): {known}."
        try:
            look(self.bases[base_model])
        except BaseNotServable as error:
            self.not_to_be_had(base_model, str(error))
            return NotAdmitted("base_not_servable", f"base model {shown(base_model)}: {error.why}.")
        except (BaseModelMissing, BaseModelRefused) as error:
            return self.not_to_be_had(base_model, str(error))
        return None

    def not_to_be_had(self, base_model: str, why: str) -> str:
        """The operator's log has the reason and the folder; the company is told that it is not its fault."""
        log.error("base model %s of RILLFOLD_BASE_MODELS cannot be had: %s", base_model, why)
        return f"base model {base_model!r} is on the list, and is not to be had here: the operator must look."

    def why_too_large(self, base_model: str, method: str, settings: TrainSettings, longest: int) -> NotAdmitted | None:
        """`longest`: bytes of the longest row."""
        if (shape := shape_of(self.bases[base_model])) is None:
            return None
        there, on_gpu = self.memory()
        return too_large(need(shape, method, settings, longest, on_gpu), there)

    def empty_folder(self, company: str, run: str) -> Path:
        """Named by hash: no word of a request is ever part of a path. What a crashed run left there is of no use."""
        return self._empty(_named(company, run))

    def checkpoints(self, company: str, run: str) -> Path:
        """Where a run leaves what the next worker on this machine takes up. The child makes it when it has something;
        the newest alone is kept there."""
        return self.scratch / f"{CHECKPOINTS}{_named(company, run)}"

    def forget(self, company: str, run: str) -> None:
        """Its outcome stands: nobody takes it up."""
        shutil.rmtree(self.checkpoints(company, run), ignore_errors=True)

    def left(self) -> set[Path]:
        """What runs have left here, of whichever worker."""
        return {path for path in self.scratch.glob("*") if OF_A_RUN.fullmatch(path.name)}

    def keep_only(self, live: Iterable[tuple[str, str]], of: Collection[Path]) -> None:
        """What belongs to runs that may still be taken up, or are under way beside us."""
        kept = {name for run in live for name in (_named(*run), f"{CHECKPOINTS}{_named(*run)}")}
        for folder in of:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

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


def _named(company: str, run: str) -> str:
    return hashlib.sha256(f"{company}/{run}".encode()).hexdigest()
