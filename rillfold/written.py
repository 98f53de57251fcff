"""Small files that several processes read and write: whole or not at all, on the disk, and only for their owner."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import Retry

LOCK_SECONDS = 5.0
LOOK_SECONDS = 0.02


class LockHeld(Retry):
    """Another process has it, and does not come to an end."""

    def __init__(self, lock: Path) -> None:
        super().__init__(
            f"{lock} is held by another process for {LOCK_SECONDS:g} seconds already: `fuser {lock}` shows which. "
            f"Let it go on, or end it; then ask again."
        )


def replaced(path: Path, content: bytes) -> None:
    """The old content or the new, whatever ends the process or the machine."""
    draft = _draft(path, content)
    draft.replace(path)
    _settled(path.parent)


def written_once(path: Path, content: str) -> str:
    """What the file says. Of several processes that write it at once one wins, and all read what it wrote."""
    if not path.exists():
        draft = _draft(path, content.encode())
        try:
            with suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink()
        _settled(path.parent)
    return path.read_text().strip()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time. A process that dies lets go; one that stands is not waited for."""
    _folder(lock.parent)
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _taken(held, lock)
        yield
    finally:
        os.close(held)


def _taken(held: int, lock: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise LockHeld(lock) from None
        time.sleep(LOOK_SECONDS)


def _draft(path: Path, content: bytes) -> Path:
    _folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def _settled(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
