"""What every child counts: processor seconds of a step once it is warm, and the most memory that it ever held."""

import time

from bench.peers.meter import megabytes


class Steps:
    """The first step is not counted: it is slow for everybody."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float]] = []
        self._loss = 0.0

    def ended(self, loss: float) -> None:
        self._ends.append((time.process_time(), time.perf_counter()))
        self._loss = loss

    def figures(self) -> dict[str, float]:
        (cpu, wall), (cpu_end, wall_end) = self._ends[0], self._ends[-1]
        steps = len(self._ends) - 1
        return {
            "cpu_s_per_step": (cpu_end - cpu) / steps,
            "s_per_step": (wall_end - wall) / steps,
            "peak_rss_mb": megabytes("VmHWM"),
            "loss": self._loss,
        }


def whole() -> dict[str, float]:
    """Of this process, from its start."""
    return {"cpu_s": time.process_time(), "peak_rss_mb": megabytes("VmHWM")}
