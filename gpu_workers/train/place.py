"""Where a training worker runs: its folders, and the base models of its operator."""

import fcntl
import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from gpu_workers.adapters.papers import Build
from gpu_workers.bases.files import look
from gpu_workers.errors import BaseModelMissing, BaseModelRefused, BaseNotServable, Unhealthy
from gpu_workers.train.memory import device_memory, shape_of
from processors.dataset.taught import NO_RULES, Rule
from processors.training.admit import NotAdmitted, RunBounds, shown
from processors.training.promotion import GateFloors
from processors.training.room import need, too_large
from processors.training.settings import TrainSettings
from streams.history.places import Places

log = logging.getLogger(__name__)

CHECKPOINTS, PROOF, ALIVE = "checkpoint-", "proof-", "alive-"
OF_A_RUN = re.compile(f"{CHECKPOINTS}[0-9a-f]{{64}}")
OF_A_WORKER = re.compile(f"({PROOF}|{ALIVE})?(?P<owner>[0-9a-f]{{16}})([0-9a-f]{{48}})?")


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
    places: Places = field(default_factory=Places)
    rules: Mapping[str, Rule] = field(default_factory=lambda: NO_RULES)
    """Of applications: what their events teach."""
    build: Build = field(default_factory=Build)
    """What is installed here: an adapter's statement says it."""
    memory: Callable[[], tuple[int, bool]] = device_memory
    """Bytes of the device that trains, and whether it is a GPU."""
    owner: str = field(default_factory=lambda: token_hex(8))
    """In the name of each folder that is this worker's own, whoever else works here."""

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

    @contextmanager
    def held(self) -> Iterator[None]:
        """While a worker lives nobody sweeps what is its own. The kernel lets go for one that is killed."""
        draft = self.scratch / f".{ALIVE}{self.owner}"
        with self._making_room():
            self.scratch.mkdir(parents=True, exist_ok=True)
            lock = draft.open("w")
        with lock:
            with self._making_room():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = draft.rename(self.scratch / f"{ALIVE}{self.owner}")  # none is there that nobody holds
            try:
                yield
            finally:
                held.unlink(missing_ok=True)

    def empty_folder(self, company: str, run: str, claim: int) -> Path:
        """Of this worker and claim alone: who had the run before may still be at its end here, and clears up after
        itself. Named by hash: no word of a request is ever part of a path."""
        return self._empty(f"{self.owner}{_named(company, run, str(claim))[:48]}")

    def checkpoints(self, company: str, run: str) -> Path:
        """Of the run, whoever has it: here it leaves what the next worker on this machine takes up. The child makes it
        when it has something; the newest alone is kept there."""
        return self.scratch / f"{CHECKPOINTS}{_named(company, run)}"

    def forget(self, company: str, run: str) -> None:
        """Its outcome stands: nobody takes it up."""
        shutil.rmtree(self.checkpoints(company, run), ignore_errors=True)

    def left(self) -> set[Path]:
        """What runs have left here, of whichever worker."""
        return {path for path in self.scratch.glob("*") if OF_A_RUN.fullmatch(path.name) or _owner(path)}

    def keep_only(self, live: Iterable[tuple[str, str]], of: Collection[Path]) -> None:
        """What belongs to runs that may still be taken up, or to workers that live. Older releases name a run's folder
        by the run alone."""
        kept = {name for run in live for name in (_named(*run), f"{CHECKPOINTS}{_named(*run)}")}
        alive = {owner for owner in set(map(_owner, of)) if owner and self._lives(owner)}
        for path in of:
            if path.name in kept or _owner(path) in alive:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _lives(self, owner: str) -> bool:
        try:
            with (self.scratch / f"{ALIVE}{owner}").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def proof_folder(self) -> Path:
        """For a tiny run of this worker's own, where those of requests are."""
        return self._empty(f"{PROOF}{self.owner}")

    def _empty(self, name: str) -> Path:
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        with self._making_room():
            (folder / "out").mkdir(parents=True)
        return folder

    @contextmanager
    def _making_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unhealthy(f"No folder for a run can be made in {self.scratch}: {error}. Make room there.") from error


def _owner(path: Path) -> str | None:
    """Whose alone it is; None: nobody's."""
    found = OF_A_WORKER.fullmatch(path.name)
    return found["owner"] if found else None


def _named(*whose: str) -> str:
    return hashlib.sha256("/".join(whose).encode()).hexdigest()
