"""Folders that a run works in: gone when it ends, and where it was killed, when the next one begins beside them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from tempfile import mkdtemp

HOST_BYTES = 1_000
ALIVE = ".alive"
"""Locked in each while its process lives, and holds its host's name. The kernel lets go for one that is killed."""


@contextmanager
def room(out: Path, name: str) -> Iterator[Path]:
    """Of this run alone. Others may be at work in `out` at the same time."""
    for left in out.glob(f"{name}-*"):
        _clear(left)
    folder = Path(mkdtemp(prefix=f"{name}-", dir=out))
    with _alive(folder):
        try:
            yield folder
        finally:
            _remove(folder)


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Under its name from when it is locked: one that is there and free is nobody's."""
    with (folder / f"{ALIVE}.draft").open("w") as held:
        held.write(gethostname())
        held.flush()
        with suppress(OSError):  # where no file can be locked nobody knows who lives, and nothing is removed
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(held.name).rename(folder / ALIVE)
        yield


def _clear(left: Path) -> None:
    """A lock may be of a host: it says nothing of runs of another one."""
    try:
        held = os.open(left / ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.read(held, HOST_BYTES) == gethostname().encode():
            _remove(left)
    except OSError:
        return
    finally:
        os.close(held)


def _remove(folder: Path) -> None:
    """What says that it is nobody's goes last: a removal that is broken off is taken up by the next run."""
    with suppress(OSError):  # what somebody else has removed, or may alone remove, is no fault of the run
        for each in folder.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != ALIVE:
                each.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
