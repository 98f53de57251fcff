"""The workers of one data folder as child processes: started in order, watched, restarted, and never left behind."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rillfold.embedded.children import Child, stop_all
from rillfold.processes import COMMANDS
from schemas.errors import Stop

READY = re.compile(r"ready( but for .*)?$", re.MULTILINE)
"""Ends a line: libraries colour the beginning as they please. A worker may work, and wait for an operator in part."""
READY_WITHIN = 180.0
LOOK = 0.05
# A worker that ends by itself is started again, later each time: a fault that stays must not become a storm.
RESTART_AFTER = (0.5, 2.0, 10.0, 30.0)


def command_line(environment: Mapping[str, str], *arguments: str) -> list[str]:
    """`rillfold ...` as a process of its own, whatever lies in the folder that we are in."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["/usr/bin/env", *variables, sys.executable, "-P", "-m", "rillfold", *arguments]


class WorkerEnded(Stop):
    """A worker ended before it was ready."""


class Crew:
    """Each worker is a `rillfold` command of its own; it says `ready` at the end of a line when it works, and
    what it is ready but for."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self._logs = data_dir.resolve() / "logs"
        self._environment = {"RILLFOLD_DATA_DIR": str(data_dir.resolve()), **environment}
        self._children: dict[str, Child] = {}
        self._restarts: dict[str, tuple[int, float]] = {}

    def start(self, names: Sequence[str], each: Callable[[str], None] | None = None) -> None:
        """All at once: each spends its start mostly importing and joining."""
        self.begin(names)
        self.until_ready(names, each)

    def begin(self, names: Sequence[str]) -> None:
        """Does not wait: a model loads while others work."""
        for name in names:
            self._children[name] = self._spawn(name)

    def until_ready(self, names: Sequence[str], each: Callable[[str], None] | None = None) -> None:
        """`each` is told `NAME is ready`, or what it is ready but for."""
        for name in names:
            said = self._until_ready(name)
            if each is not None:
                each(f"{name} is {said}")

    def kill(self, name: str) -> None:
        """As a crash would: no warning, no clean-up."""
        os.kill(self._children[name].pid, signal.SIGKILL)
        self._children[name].stop()

    def restart(self, name: str) -> None:
        self._children[name] = self._spawn(name)
        self._until_ready(name)

    def mend(self, now: float) -> list[str]:
        """Starts again what ended by itself, and names it."""
        mended = []
        for name, child in self._children.items():
            if child.alive():
                continue
            times, ended = self._restarts.get(name, (0, now))
            self._restarts[name] = (times, ended)
            if now - ended >= RESTART_AFTER[min(times, len(RESTART_AFTER) - 1)]:
                self._children[name] = self._spawn(name)
                self._restarts[name] = (times + 1, now)
                mended.append(name)
        return mended

    def stop(self) -> None:
        stop_all(self._children.values())
        self._children.clear()

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def last_log(self, name: str) -> Path:
        """What the process before the present one said."""
        return self._logs / f"{name}.last.log"

    def _spawn(self, name: str) -> Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        if self.log(name).exists():
            self.log(name).replace(self.last_log(name))
        return Child(name, command_line(self._environment, *COMMANDS[name]), self.log(name))

    def _until_ready(self, name: str) -> str:
        until = time.monotonic() + READY_WITHIN
        child = self._children[name]
        while (said := READY.search(self.log(name).read_text(errors="replace"))) is None:
            if not child.alive():
                raise WorkerEnded(str(child.failure("ended before it was ready")))
            if time.monotonic() > until:
                raise WorkerEnded(str(child.failure(f"was not ready within {READY_WITHIN:.0f} seconds")))
            time.sleep(LOOK)
        return said[0]


@contextmanager
def at_work(data_dir: Path, environment: Mapping[str, str] | None = None) -> Iterator[Crew]:
    """A crew that is gone when the block ends, however it ends."""
    crew = Crew(data_dir, environment or {})
    try:
        yield crew
    finally:
        crew.stop()
