"""What a data folder knows of the stack that runs on it: a lock that dies with its holders, and where to connect."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rillfold.embedded.errors import StackError
from rillfold.settings import Settings

# The keepers of a killed stack hold its lock until their servers are gone.
LET_GO = 8.0
STOPS_WITHIN = 40.0
PROCESSES = Path("/proc")


class Endpoints(msgspec.Struct, frozen=True):
    """Where the log and the database answer."""

    bootstrap_servers: str
    postgres_dsn: str | None = None


COMPOSE = Endpoints("127.0.0.1:9092", "postgresql://postgres@127.0.0.1:5432/postgres")


class Running(msgspec.Struct, frozen=True):
    """The content of `stack.json`."""

    endpoints: Endpoints
    pid: int
    children: dict[str, int]


@contextmanager
def held(data_dir: Path) -> Iterator[int]:
    """The lock on a data folder, as a file number for the keepers to hold too.

    The kernel lets go of it when its last holder ends, however that ends: there are no stale locks.
    """
    lock = os.open(data_dir / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(lock, data_dir)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        (data_dir / "stack.json").unlink(missing_ok=True)
        try:
            yield lock
        finally:
            (data_dir / "stack.json").unlink(missing_ok=True)
    finally:
        os.close(lock)


def _take(lock: int, data_dir: Path) -> None:
    until = time.monotonic() + LET_GO
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = int(os.pread(lock, 32, 0) or b"0")
            if _alive(owner) or time.monotonic() > until:
                raise StackError(
                    f"A stack already runs on {data_dir} (process {owner}): use that one, stop it (`rillfold down`), "
                    "or set RILLFOLD_DATA_DIR to another folder."
                ) from None
            time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Who is dead and not yet waited for still has a number, and can be sent signals."""
    try:
        # After the name, which may hold anything: a letter for what the process does. There is no such file on a Mac.
        return (PROCESSES / str(pid) / "stat").read_text(errors="replace").rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 0


def write(data_dir: Path, running: Running) -> None:
    """Whole or not at all: other processes look for this file while we start."""
    draft = data_dir / "stack.json.draft"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(running), indent=2))
    draft.replace(data_dir / "stack.json")


def read(data_dir: Path) -> Running | None:
    """The stack that runs here now. What a killed one left behind does not count: its lock is free."""
    try:
        running = msgspec.json.decode((data_dir / "stack.json").read_bytes(), type=Running)
        lock = os.open(data_dir / "stack.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return running if _alive(running.pid) else None
    finally:
        os.close(lock)
    return None


def stop(data_dir: Path, running: Running) -> None:
    """Asks the stack's owner to stop it, and waits until the lock is free: every server is gone then."""
    os.kill(running.pid, signal.SIGTERM)
    until = time.monotonic() + STOPS_WITHIN
    while read(data_dir) is not None:
        if time.monotonic() > until:
            raise StackError(
                f"Process {running.pid} did not stop its stack within {STOPS_WITHIN:.0f} seconds: kill it."
            )
        time.sleep(0.05)


def attach(settings: Settings) -> Endpoints:
    """Where the log and the database answer, for every verb but `up`."""
    match settings.provider:
        case "embedded":
            found = read(settings.data_dir)
            if found is None:
                raise StackError(
                    f"No stack is running on {settings.data_dir.resolve()}: run `rillfold up` there first."
                )
            return as_named(settings, found.endpoints)
        case "compose":
            return as_named(settings, COMPOSE)
        case _:
            if settings.bootstrap_servers is None:
                raise StackError("RILLFOLD_PROVIDER=external needs RILLFOLD_BOOTSTRAP_SERVERS: set it.")
            return Endpoints(settings.bootstrap_servers, settings.postgres_dsn)


def as_named(settings: Settings, found: Endpoints) -> Endpoints:
    """Who names other servers means those: work that went past them would be missed too late."""
    for field in Endpoints.__struct_fields__:
        if getattr(settings, field) not in (None, getattr(found, field)):
            name = f"RILLFOLD_{field.upper()}"
            raise StackError(
                f"{name} names another server than RILLFOLD_PROVIDER={settings.provider}, which uses "
                f"{getattr(found, field) or 'none'}: set RILLFOLD_PROVIDER=external, or unset {name}."
            )
    return found
