"""The one way in which a test starts a worker: as a supervisor would, a process that does not outlive the suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from rillfold.embedded.children import Child
from rillfold.workers.crew import READY

READY_WITHIN = 180.0
KEEPERS = 192
"""From here on, what a keeper ends with is the low byte of minus its child's signal."""


def external(servers: str, prefix: str, data: Path, **more: str) -> dict[str, str]:
    """What tells a worker where its log and its folder are. `more` are settings by their names."""
    given = {"PROVIDER": "external", "BOOTSTRAP_SERVERS": servers, "TOPIC_PREFIX": prefix, "DATA_DIR": str(data)}
    return {f"RILLFOLD_{name}": value for name, value in (given | more).items()}


def asleep(worker: WorkerProcess) -> bool:
    with suppress(psutil.NoSuchProcess):  # it has died this moment
        return worker.alive and psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED
    return False


class WorkerProcess:
    """`rillfold <command>`. Each of its lives has a log of its own: `<name>.01.log`, `<name>.02.log`, ..."""

    def __init__(
        self, name: str, command: tuple[str, ...], environment: Mapping[str, str], logs: Path, module: str = "rillfold"
    ) -> None:
        self.name, self.environment, self._module = name, dict(environment), module
        self._command, self._logs, self._lives = command, logs, 0
        self._child: Child | None = None

    def start(self, *more: str, failpoint: str = "") -> Self:
        assert not self.alive, f"{self.name} is at work"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._lives += 1
        variables = self.environment | ({"RILLFOLD_FAILPOINT": failpoint} if failpoint else {})
        line = ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]
        line += [sys.executable, "-m", self._module, *self._command, *more]
        self._child = Child(self.name, line, self._logs / f"{self.name}.{self._lives:02}.log")
        return self

    @property
    def child(self) -> Child:
        assert self._child is not None, f"{self.name} was not started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    @property
    def ready(self) -> bool:
        return self.alive and READY.search(self.said()) is not None

    def until_ready(self, seconds: float = READY_WITHIN) -> Self:
        stop = time.monotonic() + seconds
        while not self.ready:
            assert self.alive and time.monotonic() < stop, self.child.failure("did not become ready")
            time.sleep(0.05)
        return self

    def send(self, number: signal.Signals) -> None:
        """It may have died this moment, at a failpoint."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.child.stop()

    def code(self) -> int | None:
        """As Popen has it: none while it lives, minus the signal that it died of."""
        code = self.child._keeper.poll()
        return code - 256 if code is not None and code >= KEEPERS else code

    def ended(self, seconds: float = 60) -> int:
        with suppress(subprocess.TimeoutExpired):
            self.child._keeper.wait(seconds)
        code = self.code()
        assert code is not None, f"{self.name} has not ended within {seconds:.0f} s\n{self.said()}"
        return code

    def said(self) -> str:
        return self.child.log.read_text(errors="replace")

    def log(self) -> str:
        """All that it has said in all its lives."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._logs.glob(f"{self.name}.*.log")))

    def stop(self) -> None:
        """In order, and for a sleeper too."""
        if self._child is not None:
            if self.alive:
                self.send(signal.SIGCONT)
            self._child.stop()

    def close(self) -> None:
        """Nothing waits for its last words."""
        if self.alive:
            self.kill()
