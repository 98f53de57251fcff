"""Folders that a run works in: gone when it ends, and where it was killed, when the next one begins beside them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

ALIVE = ".alive"
"""Locked in each while its process lives. The kernel lets go for one that is killed."""


@contextmanager
def room(out: Path, name: str) -> Iterator[Path]:
    """Of this run alone. Others may be at work in `out` at the same time."""
    for left in out.glob(f"{name}-*"):
        _clear(left)
    folder = Path(mkdtemp(prefix=f"{name}-", dir=out))
    # Under its name from when it is locked: one that is there and free is nobody's.
    with (folder / f"{ALIVE}.draft").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(held.name).rename(folder / ALIVE)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(left: Path) -> None:
    try:
        held = os.open(left / ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)
