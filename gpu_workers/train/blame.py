"""Whose fault is a run that broke? The worker trains a tiny model of its own: where that breaks too, the machine's."""

import asyncio
import shutil
from collections.abc import Callable

from gpu_workers.errors import Unhealthy
from gpu_workers.train.lines import Broken, ProofSpec, Report
from gpu_workers.train.parent import Train
from gpu_workers.train.place import Workplace
from schemas.training import TrainingFailed

OF_THE_BASE = ("base_model_missing", "base_model_refused", "base_not_servable")
SUSPECT = (
    "child_died",
    "out_of_memory",
    "no_space",
    "internal",
    "diverged",
    "artifact_refused",
    "too_long",
    *OF_THE_BASE,
)
"""Failures of which the machine may be the cause, whatever the request asked for."""
WORDS = 700
PROOF_SECONDS = 300.0
"""Seconds of work, and the start of a process on a machine that is busy."""


class Blame:
    """So a broken card fails no run after the other, and no request ends the worker: the proof has nothing of it."""

    def __init__(self, place: Workplace, train: Train, beat: Callable[[], None]) -> None:
        self._place, self._train, self._beat = place, train, beat

    async def settle(self, failed: TrainingFailed) -> None:
        """Returns where the failure is the run's own, and may be said. Raises Unhealthy where it is the machine's."""
        if failed.reason in SUSPECT and (broken := await self._broken()):
            raise Unhealthy(
                f"This machine trains nobody. Run {failed.run} of {failed.company} broke ({failed.reason}: "
                f"{_line(failed.detail)}), and a tiny training of the worker's own broke as well, {broken}. Look at "
                f"that device and its driver, the installation, the memory, and the disk of {self._place.scratch}. "
                "The request waits in the log, and is tried again when the worker is started again."
            )

    async def _broken(self) -> str | None:
        """Where the worker's own training stood, and why it went no further."""
        phase = "start"

        async def heard(report: Report) -> None:
            nonlocal phase
            self._beat()
            phase = report.phase

        folder = self._place.proof_folder()
        limit = asyncio.timeout(PROOF_SECONDS)
        try:
            async with limit:
                outcome = await self._train(ProofSpec(folder=folder, threads=self._place.threads), heard)
        except Exception as error:  # whatever it is: nothing of a request is in the proof, so it is the machine's
            why = f"no end in {PROOF_SECONDS:.0f} seconds" if limit.expired() else f"{type(error).__name__}: {error}"
        else:
            if not isinstance(outcome, Broken):
                return None
            why = f"{outcome.reason}: {outcome.detail}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return f"last heard of at {phase!r}: {_line(why)}"


def _line(text: str) -> str:
    """As one line of the log, with the end of it: there an error has its name."""
    return " ".join(text.split())[-WORDS:]
