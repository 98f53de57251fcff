"""One of two fold workers is killed: so long until every partition of the changelog gets on again."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Self
from uuid import uuid4

from bench.harness import Figures

PAUSE = 0.02
LIMIT = 180.0
# Runs beside the workers, in a process of its own: events for every partition, and the ends of the changelog on demand.
SENDER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from schemas.codec.codec import encode
from schemas.company import CompanyRegistered
bootstrap, source, prefix = sys.argv[1:]
async def main():
    to = {"bootstrap_servers": bootstrap}
    async with AIOKafkaProducer(**to) as producer, AIOKafkaConsumer(**to) as reader:
        n, changelog = 0, None
        while True:
            for partition in range(4):
                event = CompanyRegistered(id=f"i{n}", company=f"c{n % 97}", time=n, correlation="c", name=f"Name {n}")
                await producer.send(source, encode(event), key=event.company.encode(), partition=partition)
                n += 1
            if changelog is None:
                own = [name for name in await reader.topics() if name.startswith(prefix) and "companies" in name]
                changelog = own[0] if own else None
            if changelog is not None:
                ends = await reader.end_offsets([TopicPartition(changelog, partition) for partition in range(4)])
                print(*(ends[key] for key in sorted(ends)), flush=True)
            await asyncio.sleep(0.05)
asyncio.run(main())
"""


def takeover(bootstrap: str, checkout: Path) -> Figures:
    """Of seconds the inverse, as everywhere here: the larger the better."""
    with TemporaryDirectory(prefix="bench-takeover-") as folder, ExitStack() as running:
        prefix = f"takeover-{uuid4().hex[:6]}-"
        given = {"PROVIDER": "external", "BOOTSTRAP_SERVERS": bootstrap, "TOPIC_PREFIX": prefix}
        environment = os.environ | {f"RILLFOLD_{name}": value for name, value in given.items()}
        line = [sys.executable, "-m", "rillfold"]
        subprocess.run([*line, "topics", "create"], cwd=checkout, env=environment, check=True, capture_output=True)
        begun = []
        for name in (
            "one",
            "two",
        ):  # a new broker refuses two that ask at once
            given = environment | {"RILLFOLD_DATA_DIR": str(Path(folder) / name)}
            log = Path(folder) / name / "log"
            begun.append(running.enter_context(worker(line, given, log, checkout)))
            until(partial(_says_ready, log))
        killed, _ = begun
        ends = running.enter_context(Ends(bootstrap, f"{prefix}company-data", prefix))
        ends.all_get_on()
        killed.send_signal(signal.SIGKILL)
        began = monotonic()
        sleep(0.5)  # what it had sent is there
        ends.all_get_on()
        return {"per_s": 1 / (monotonic() - began)}


@contextmanager
def worker(
    line: Sequence[str], environment: Mapping[str, str], log: Path, checkout: Path
) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir()
    with log.open("wb") as out:
        command = [*line, "worker", "fold", "--only", "companies", "--name", log.parent.name]
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Ends:
    """The ends of a changelog's partitions while events go in."""

    def __init__(self, bootstrap: str, source: str, prefix: str) -> None:
        self._arguments = (bootstrap, source, prefix)
        self._now: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        line = [sys.executable, "-c", SENDER, *self._arguments]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._follow, daemon=True).start()
        until(lambda: bool(self._now))
        return self

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._now = tuple(map(int, line.split()))

    def all_get_on(self) -> None:
        before = self._now
        until(lambda: all(now > then for now, then in zip(self._now, before, strict=True)))

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _says_ready(log: Path) -> bool:
    return "ready" in log.read_text()


def until(holds: Callable[[], bool]) -> None:
    stop = monotonic() + LIMIT
    while not holds():
        if monotonic() > stop:
            raise TimeoutError(f"not within {LIMIT:.0f} s")
        sleep(PAUSE)
