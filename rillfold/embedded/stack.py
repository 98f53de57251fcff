"""The embedded stack as a whole: start it, watch it, stop it, or find the one that runs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rillfold.embedded import kafka, ports, postgres, state
from rillfold.embedded.children import Child, stop_all
from rillfold.embedded.errors import StackError
from rillfold.embedded.jars import Progress, resolve
from rillfold.embedded.state import Endpoints
from rillfold.embedded.warm import start_cache
from rillfold.settings import Settings, from_env

ROOM_NEEDED = 512 * 2**20


class Stack(msgspec.Struct, frozen=True):
    """A stack that serves."""

    endpoints: Endpoints
    children: tuple[Child, ...]

    def ended(self) -> Child | None:
        return next((child for child in self.children if not child.alive()), None)


@contextmanager
def running(
    data_dir: Path,
    *,
    postgres: bool = True,
    settings: Settings | None = None,
) -> Iterator[Endpoints]:
    """A stack of one's own for as long as the block lasts. Its data stays in `data_dir`."""
    with serving(data_dir, settings or from_env(), postgres) as stack:
        yield stack.endpoints


@contextmanager
def serving(
    data_dir: Path, settings: Settings, with_postgres: bool, progress: Progress | None = None
) -> Iterator[Stack]:
    data_dir = data_dir.resolve()
    logs = data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(data_dir)
    class_path = resolve("kafka", settings.cache_dir, repository=settings.maven_repository, progress=progress)
    cached = start_cache(class_path, settings.cache_dir)
    flags = [f"-XX:AOTCache={cached}"] if cached else []
    with state.held(data_dir) as lock:
        children: list[Child] = []
        try:
            endpoints = _start(data_dir, (class_path, flags), settings, with_postgres, lock, children)
            pids = {child.name.lower(): child.pid for child in children}
            state.write(data_dir, state.Running(endpoints, os.getpid(), pids))
            yield Stack(endpoints, tuple(children))
        finally:
            stop_all(children)


def _start(
    data_dir: Path,
    java: tuple[list[Path], list[str]],
    settings: Settings,
    with_postgres: bool,
    lock: int,
    children: list[Child],
) -> Endpoints:
    """Both first, then waits for both. Whatever runs is in `children`, should one fail."""
    logs, database, (class_path, flags) = data_dir / "logs", None, java
    before = ports.of_last_time(data_dir)
    kafka_port = ports.chosen(settings.kafka_port, "RILLFOLD_KAFKA_PORT", before.get("kafka"))
    both = (kafka_port, ports.free_port(kafka_port, *before.values()))
    broker = kafka.start(data_dir / "kafka", logs, class_path, both, flags=flags, keep_open=[lock])
    children.append(broker)
    if with_postgres:
        port = ports.chosen(settings.postgres_port, "RILLFOLD_POSTGRES_PORT", before.get("postgres"), *both)
        server = postgres.start(data_dir / "postgres", logs, port, [lock])
        children.append(server)
        server.wait_until(postgres.started)
        database, before = postgres.dsn(port), {**before, "postgres": port}
    broker.wait_until(kafka.started)
    ports.keep(data_dir, {**before, "kafka": kafka_port})
    return Endpoints(f"{ports.HOST}:{kafka_port}", database)


def _refuse_full_disk(data_dir: Path) -> None:
    free = shutil.disk_usage(data_dir).free
    if free < ROOM_NEEDED:
        raise StackError(
            f"Only {free // 2**20} MiB are free at {data_dir}, and the stack needs {ROOM_NEEDED // 2**20}: "
            "make room, or set RILLFOLD_DATA_DIR to a folder on another disk."
        )
