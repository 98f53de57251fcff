"""Folders that a run works in: gone when it ends, and where it was killed, when the next one begins beside them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import gethostname
from tempfile import mkdtemp

from schemas.errors import Stop

HOST_BYTES = 1_000
ALIVE = ".alive"
"""Locked in each while its process lives, and holds its host's name. The kernel lets go for one that is killed."""


class OutputInUse(Stop):
    """A folder with what another run has made, or makes."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Makes the folder, and is the only loop of this host in it until the block ends, or the process."""
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        held = os.open(out, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputInUse(f"Another run is at work in {out}: name another folder, or wait for it.") from None
        yield
    finally:
        os.close(held)


@contextmanager
def room(out: Path, name: str) -> Iterator[Path]:
    """Of this run alone. Others may be at work in `out` at the same time."""
    with ExitStack() as held:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            for left in out.glob(f"{name}-*"):
                _clear(left)
            folder = Path(mkdtemp(prefix=f"{name}-", dir=out))
            held.enter_context(_alive(folder))
            held.callback(_remove, folder)
        yield folder


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stop(f"{out} cannot be written: {error.strerror}. Name another folder.") from error


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
