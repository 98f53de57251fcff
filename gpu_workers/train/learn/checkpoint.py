"""What a run that is broken off leaves to the next one: whole and its own, or nothing."""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic
from typing import Any

import torch

log = logging.getLogger(__name__)

NAME, DRAFT = "checkpoint", ".draft"
SHARE = 100
"""No more than a hundredth of a run's time goes into them."""


class Checkpoints:
    """In a folder of the run's own. `spec`: the hash of all that decides the run's bytes."""

    def __init__(self, folder: Path | None, spec: str, seconds: float) -> None:
        self._file = None if folder is None else folder / NAME
        self._spec, self._seconds, self._due = spec, seconds, monotonic() + seconds

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """When it is time: in a file beside, synced, then in one move.

        Whoever had the run before may still write its last one. Each has a draft of its own, and both hold the same
        run: whichever move comes last, who reads it ends with the same bytes.
        """
        if self._file is None or (began := monotonic()) < self._due:
            return
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        with suppress(FileNotFoundError):  # swept under us: the run is somebody else's by now, or has its outcome
            self._write(self._file, buffer.getbuffer())
        now = monotonic()
        self._due = now + max(self._seconds, SHARE * (now - began) if self._seconds else 0.0)

    def _write(self, file: Path, payload: Any) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent, suffix=DRAFT, delete=False) as out:
            out.write(f"{_proof(self._spec, payload)}\n".encode())
            out.write(payload)
            out.flush()
            os.fsync(out.fileno())
        Path(out.name).rename(file)
        _sync(file.parent)

    def read(self) -> dict[str, Any] | None:
        """None: there is none, or it is torn, or another run's. Nothing in it is run.

        Drafts go: whoever wrote them was killed, or has lost the run.
        """
        if self._file is None:
            return None
        for draft in self._file.parent.glob(f"*{DRAFT}"):
            draft.unlink(missing_ok=True)
        if not self._file.is_file():
            return None
        with self._file.open("rb") as file:
            said, payload = file.readline().strip().decode("ascii", "replace"), file.read()
        if said != _proof(self._spec, payload):
            log.warning("%s is torn, or another run's: begun from the beginning", self._file)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
        return state


def _proof(spec: str, payload: Any) -> str:
    digest = hashlib.sha256(spec.encode())
    digest.update(payload)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
