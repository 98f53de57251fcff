"""What every Python peer shares: its job as JSON on the command line, and one JSON line of figures at the end."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple
from zlib import crc32

WARM = 300_000
"""From this event on a JVM has compiled what it runs."""
SETTLED = 1_000_000
"""From this event on memory should not grow."""


class Job(NamedTuple):
    bootstrap: str
    topic: str
    events: int
    scratch: str
    """An empty folder, this run's own."""
    id: str
    """Consumer group and prefix of whatever the peer creates: new at each run."""


def job() -> Job:
    return Job(**json.loads(sys.argv[1]))


class Meter:
    """The clock runs from the assignment, before the first fetch, to the moment when all is folded and durable."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.seen = 0
        self._warm_seen = 0
        self._started = self._warm = self._ended = 0.0
        self._settled_rss = 0.0
        self._cpu = 0.0

    def start(self) -> None:
        self._cpu = process_time()
        self._started = self._warm = perf_counter()

    def add(self, events: int) -> bool:
        """True once the last event has been seen."""
        before, self.seen = self.seen, self.seen + events
        if before < WARM <= self.seen:
            self._warm, self._warm_seen = perf_counter(), self.seen
        if before < SETTLED <= self.seen:
            self._settled_rss = megabytes("VmRSS")
        return self.seen >= self.events

    def stop(self) -> None:
        self._ended = perf_counter()
        self._cpu = process_time() - self._cpu

    def report(self, counts: Mapping[str, int]) -> None:
        figures = {
            "events": self.seen,
            "seconds": self._ended - self._started,
            "warm_events": self.seen - self._warm_seen,
            "seconds_warm": self._ended - self._warm,
            "cpu_seconds": self._cpu,
            "peak_rss_mb": megabytes("VmHWM"),
            "rss_growth": megabytes("VmRSS") / self._settled_rss if self._settled_rss else 1.0,
            "counted": sum(counts.values()),
            "keys": len(counts),
            "digest": sum(crc32(key.encode()) * count for key, count in counts.items()) & (2**64 - 1),
        }
        print(json.dumps(figures), flush=True)


def megabytes(figure: str) -> float:
    """VmRSS is what a process holds, VmHWM the most it ever held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {figure}: this bench needs Linux")
