"""Dying on purpose between two steps of a commit, so that tests can show that nothing is lost there."""

import os
import signal
import threading

from schemas.errors import Stop

STEPS = ("decoded", "published", "appended", "stored")


class FailPoint:
    """`appended:3` kills the process, as kill -9 does, when it passes `appended` for the third time. Empty: never.

    `appended:3:SIGSTOP` puts it to sleep there, until somebody sends SIGCONT. `appended:3:HANG` blocks the fold there
    for ever, and leaves the process's other threads alone.
    """

    def __init__(self, spec: str = "") -> None:
        self._step, count, number, *_ = (*spec.split(":"), "", "")
        if self._step not in ("", *STEPS):
            raise Stop(
                f"RILLFOLD_FAILPOINT={spec!r}: the step must be one of {', '.join(STEPS)}. Unset it in production."
            )
        self._left = int(count or 1)
        self._signal = None if number == "HANG" else signal.Signals[number or "SIGKILL"]

    def reached(self, step: str) -> None:
        if step != self._step:
            return
        self._left -= 1
        if self._left > 0:
            return
        if self._signal is None:
            threading.Event().wait()
        elif self._left == 0:
            os.kill(os.getpid(), self._signal)
