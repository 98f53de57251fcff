"""Keeps one server process. Stops it when asked by SIGTERM, and when whoever started the keeper is gone.

Runs as a program of its own (standard library only, one thread), so that it outlives a kill -9 of its parent. Should
the keeper itself be killed, the kernel kills the server (PR_SET_PDEATHSIG; safe, for the only thread is the one that
forks).

    python -I -S keeper.py PARENT STOP_SIGNAL PATIENCE ORPHAN_PATIENCE USER COMMAND...
"""

import ctypes
import os
import pwd
import select
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1
GLANCE = 0.25


def main(arguments: list[str]) -> int:
    parent, stop_signal = int(arguments[0]), int(arguments[1])
    patience, orphan_patience = float(arguments[2]), float(arguments[3])
    asked, wakeup = _listen()
    child = _start(arguments[5:], arguments[4] or None)
    os.write(sys.stdout.fileno(), b"%d\n" % child.pid)
    while child.poll() is None:
        if asked:
            return _end(child, stop_signal, patience)
        if os.getppid() != parent:
            return _end(child, stop_signal, orphan_patience)
        if select.select([wakeup], [], [], GLANCE)[0]:
            os.read(wakeup, 512)
    return child.returncode & 0xFF


def _listen() -> tuple[list[int], int]:
    """Signals seen so far, and a file that turns readable when one comes."""
    asked: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return asked, reader


def _start(command: list[str], user: str | None) -> subprocess.Popen[bytes]:
    keeper = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def die_with_keeper() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        preexec_fn=die_with_keeper,  # noqa: PLW1509 - one thread
    )


def _end(child: subprocess.Popen[bytes], stop_signal: int, patience: float) -> int:
    child.send_signal(stop_signal)
    try:
        return child.wait(patience) & 0xFF
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait() & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
