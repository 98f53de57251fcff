"""Whose fault is a step that failed: a row's, or the engine's? Plain rules."""

from collections.abc import Sequence

from gpu_workers.refused import EngineStopped

STEPS, OWNERS = 8, 3
"""So many steps in a row without one good row, of so many owners: it is not what one of them asked for."""


class StepCircuit:
    """Opens when nothing succeeds for anybody."""

    def __init__(self) -> None:
        self._failed = 0
        self._owners: set[str | None] = set()

    def note(self, rows: Sequence[tuple[str | None, bool]]) -> None:
        """(owner, computed) of each row of a step. Raises EngineStopped."""
        if any(computed for _, computed in rows):
            self._failed, self._owners = 0, set()
            return
        self._failed += 1
        self._owners |= {owner for owner, _ in rows}
        if self._failed >= STEPS and len(self._owners) >= OWNERS:
            raise EngineStopped(
                f"{self._failed} steps of the engine failed, for all rows of {len(self._owners)} companies. The worker "
                "ends and leaves them in the log; look at the device and its memory."
            )


def broken(error: BaseException) -> bool:
    """After these nothing on the device works any more, whoever asks."""
    return "AcceleratorError" in type(error).__name__ or "CUDA error" in str(error)
