"""Server processes that never outlive us, each under a keeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rillfold.embedded import keeper
from rillfold.embedded.errors import StackError

READY_WITHIN = 120.0
PATIENCE = 30.0
# Whoever started us is gone, and promised that nothing is left five seconds later.
ORPHAN_PATIENCE = 3.0


class Child:
    """One server process. What it prints goes to `log`, which is emptied at each start."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.name, self.log = name, log
        # -I -S: neither the environment nor site-packages can keep the keeper from starting.
        line = [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), str(int(stop_signal))]
        line += [str(PATIENCE), str(ORPHAN_PATIENCE), user or "", *command]
        with log.open("wb") as output:
            self._keeper = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is for us, who then stop the servers in order
                pass_fds=tuple(keep_open),
            )
        assert self._keeper.stdout is not None
        with self._keeper.stdout as told:
            first = told.readline()
        if not first:
            self._keeper.wait()
            raise self.failure("could not be started")
        self.pid = int(first)

    def alive(self) -> bool:
        return self._keeper.poll() is None

    def wait_until(self, done: Callable[[Child], bool]) -> None:
        until = time.monotonic() + READY_WITHIN
        while not done(self):
            if not self.alive():
                raise self.failure("ended while it started")
            if time.monotonic() > until:
                raise self.failure(f"was not ready within {READY_WITHIN:.0f} seconds")
            time.sleep(0.02)

    def wait(self) -> None:
        """For a program that ends by itself."""
        try:
            self._keeper.wait(READY_WITHIN)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {READY_WITHIN:.0f} seconds") from None

    def stop(self) -> None:
        if self.alive():
            self._keeper.terminate()
        self._keeper.wait()

    def failure(self, what: str) -> StackError:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        telling = [line for line in lines if "ERROR" in line or "FATAL" in line or "rror:" in line] or lines[-1:]
        said = f" It said: {telling[-1].strip()}" if telling else ""
        return StackError(f"{self.name} {what}.{said} Read {self.log}, then run `rillfold doctor`.")


def stop_all(children: Collection[Child]) -> None:
    """At once: each takes seconds to end in order."""
    if children:
        with ThreadPoolExecutor(len(children)) as pool:
            list(pool.map(Child.stop, children))
