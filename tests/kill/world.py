"""A machine of one's own that can be broken: a broker and a database to kill, workers to kill, stop and restart."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import msgspec
import psutil

from rillfold.embedded import kafka, ports, postgres
from rillfold.embedded.children import Child
from rillfold.embedded.jars import resolve
from rillfold.embedded.warm import start_cache
from rillfold.settings import from_env
from tests.kill.lives import Life, Nap
from tests.support.worker import WorkerProcess

KILLED = -signal.SIGKILL
EAGER = {
    # Changelogs are cleaned all the while, and a beginning that was deleted stays so when the broker is killed.
    "log.cleaner.backoff.ms": "1000",
    "log.flush.start.offset.checkpoint.interval.ms": "300",
}


class TooLate(AssertionError):
    """A wait that did not end in time. Says for what."""


MOST_CROWDED = 10.0


def crowding() -> float:
    """How many there are for each core, and so how many times as long all of this takes."""
    return min(MOST_CROWDED, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


class Patience:
    """Seconds of a machine that is ours alone: on a crowded one they pass more slowly."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        self._left, self._before = self._seconds, time.monotonic()

    @property
    def over(self) -> bool:
        now = time.monotonic()
        self._left, self._before = self._left - (now - self._before) / crowding(), now
        return self._left < 0


def until(what: str, seconds: float, done: Callable[[], bool], pause: float = 0.1) -> None:
    patience = Patience(seconds)
    while not done():
        if patience.over:
            raise TooLate(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


async def until_async(what: str, seconds: float, done: Callable[[], Awaitable[bool]], pause: float = 0.1) -> None:
    patience = Patience(seconds)
    while not await done():
        if patience.over:
            raise TooLate(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(pause)


class History:
    """Who was killed, and when."""

    def __init__(self, path: Path) -> None:
        self.path, self._began = path, time.monotonic()
        self.counts: dict[str, int] = {}
        path.write_text("")

    def add(self, what: str, who: str = "", **more: Any) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        line = {"at": round(time.monotonic() - self._began, 2), "what": what, "who": who, **more}
        with self.path.open("ab") as out:
            out.write(msgspec.json.encode(line) + b"\n")


class Servers:
    """One broker and one database, each of which can die and come back on its port with its data."""

    def __init__(self, folder: Path) -> None:
        settings = from_env()
        self._folder, self._logs = folder, folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._class_path = resolve("kafka", settings.cache_dir, repository=settings.maven_repository)
        cached = start_cache(self._class_path, settings.cache_dir)
        self._flags = [f"-XX:AOTCache={cached}"] if cached else []
        broker = ports.free_port()
        self._kafka_ports = broker, ports.free_port(broker)
        self._postgres_port = ports.free_port(*self._kafka_ports)
        self.bootstrap = f"{ports.HOST}:{self._kafka_ports[0]}"
        self.dsn = postgres.dsn(self._postgres_port)

    def start(self) -> None:
        self.start_postgres()
        self.start_kafka()

    def start_kafka(self) -> None:
        folder = self._folder / "kafka"
        given = kafka._here(folder, *self._kafka_ports) | kafka.BROKER | EAGER
        self._kafka = kafka.launch(folder, self._logs, self._class_path, given, flags=self._flags)
        self._kafka.wait_until(kafka.started)

    def start_postgres(self) -> None:
        self._postgres = postgres.start(self._folder / "postgres", self._logs, self._postgres_port, [])
        self._postgres.wait_until(postgres.started)

    def remembers(self, place: tuple[str, int], start: int) -> bool:
        """Whether the broker has written down that this partition begins there."""
        known = (self._folder / "kafka" / "data" / "log-start-offset-checkpoint").read_text().splitlines()
        return f"{place[0]} {place[1]} {start}" in known

    def kill_kafka(self) -> None:
        _kill(self._kafka)

    def kill_postgres(self) -> None:
        _kill(self._postgres)

    @contextmanager
    def hanging_postgres(self) -> Iterator[None]:
        """It takes connections and questions, and answers none: as it looks where the network is cut."""
        family = [psutil.Process(self._postgres.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def stop(self) -> None:
        for child in (getattr(self, "_postgres", None), getattr(self, "_kafka", None)):
            if child is not None:
                child.stop()


def _kill(child: Child) -> None:
    """The server and all its processes: a half of a database must not go on."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, 30)
    child.stop()


class Hand(WorkerProcess):
    """A worker in a folder of its own, which it may lose."""

    def __init__(self, name: str, command: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.life = folder / name, Life()
        super().__init__(name, command, {**environment, "RILLFOLD_DATA_DIR": str(self.folder)}, folder / "logs")

    def start(self, *more: str, failpoint: str = "") -> Self:
        self.life.breaks.append(time.time())
        return super().start(*more, failpoint=failpoint)

    def kill(self) -> None:
        super().kill()
        self.life.breaks.append(time.time())

    def ended(self, seconds: float = 60) -> int:
        until(f"{self.name} ends", seconds, lambda: self.code() is not None)
        self.life.breaks.append(time.time())
        return super().ended(1)

    def sleep(self) -> None:
        """At once, unless it sleeps already."""
        self.send(signal.SIGSTOP)
        self._asleep_since = time.time()

    def wake(self) -> None:
        self.life.naps.append(Nap(self._asleep_since, time.time()))
        self.send(signal.SIGCONT)

    def becomes(self, module: str, command: tuple[str, ...]) -> None:
        """What it is from its next start on."""
        self._module, self._command = module, command

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def tables(self) -> Path:
        return self.folder / "workers" / self.name / "tables"


@contextmanager
def scratch() -> Iterator[Path]:
    """Open to the user under which a root's Postgres runs."""
    with TemporaryDirectory(prefix="rillfold-kill-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "logs").mkdir()
        yield folder
