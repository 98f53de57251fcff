"""What every child counts: processor seconds of its steps, and the most memory that it ever held."""

import time

from bench.peers.meter import megabytes


class Steps:
    """From where training begins to the end of its last step: each contestant reads all of its texts in that time."""

    def __init__(self) -> None:
        self._steps, self._loss = 0, 0.0
        self.begin()

    def begin(self) -> None:
        self._began = self._ended = (time.process_time(), time.perf_counter())

    def ended(self, loss: float) -> None:
        self._ended = (time.process_time(), time.perf_counter())
        self._steps, self._loss = self._steps + 1, loss

    def figures(self) -> dict[str, float]:
        cpu, wall = (end - began for began, end in zip(self._began, self._ended, strict=True))
        return {
            "cpu_s_per_step": cpu / self._steps,
            "s_per_step": wall / self._steps,
            "peak_rss_mb": megabytes("VmHWM"),
            "loss": self._loss,
        }


def whole() -> dict[str, float]:
    """Of this process, from its start."""
    return {"cpu_s": time.process_time(), "peak_rss_mb": megabytes("VmHWM")}
