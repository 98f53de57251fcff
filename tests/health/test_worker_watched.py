"""A real worker that is made to stand: it says so, is not ready, and ends with 70. On a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pytest

from rillfold.embedded import ports
from rillfold.embedded.stack import running
from rillfold.embedded.state import Endpoints
from rillfold.settings import from_env
from schemas.company import CompanyRegistered
from schemas.topics import TOPICS, TopicNames
from streams.health.watchman import EX_SOFTWARE
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec

NAMES = TopicNames("w-")


class Broker:
    """One of this test's own, to be stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, ExitStack()
        self._settings = from_env({"RILLFOLD_KAFKA_PORT": str(ports.free_port())})

    def start(self) -> Endpoints:
        return self._running.enter_context(running(self._folder, postgres=False, settings=self._settings))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with TemporaryDirectory(prefix="rillfold-watch-") as folder:
        own = Broker(Path(folder))
        yield own
        own.stop()


class Watched:
    def __init__(self, folder: Path, servers: str, command: str = "fold --only companies", **settings: str) -> None:
        name = command.split()[0]
        self._told, self.log = folder / "data" / "run" / f"{name}-1.json", folder / f"{name}.log"
        self.token = folder / "data" / "operator" / "token"
        given = {"BOOTSTRAP_SERVERS": servers, "PROVIDER": "external", "TOPIC_PREFIX": NAMES.prefix}
        given |= {"DATA_DIR": str(folder / "data"), "STALL_SECONDS": "4", "STALL_EXIT_SECONDS": "3", **settings}
        environment = {**os.environ, **{f"RILLFOLD_{name}": value for name, value in given.items()}}
        line = [sys.executable, "-m", "rillfold", "worker", *command.split()]
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(line, env=environment, stdout=out, stderr=out)

    def asked(self, path: str) -> httpx.Response | None:
        """None while nobody listens."""
        try:
            bearer = {"Authorization": f"Bearer {self.token.read_text()}"} if path.startswith("/rows") else {}
            return httpx.get(json.loads(self._told.read_text())["url"] + path, headers=bearer, trust_env=False)
        except (OSError, httpx.TransportError, json.JSONDecodeError):
            return None

    def until(self, path: str, found: Callable[[httpx.Response], bool], seconds: float = 60) -> httpx.Response:
        stop = time.monotonic() + seconds
        while (answer := self.asked(path)) is None or not found(answer):
            assert time.monotonic() < stop, f"{path}: {answer and answer.text}\n{self.log.read_text()}"
            time.sleep(0.1)
        return answer


@pytest.fixture
def fold(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(servers: str, **settings: str) -> Watched:
        started.append(Watched(tmp_path, servers, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.child.kill()
        worker.child.wait()


async def filled(servers: str) -> None:
    events = [
        CompanyRegistered(id=f"i{n}", company=f"c-{n}", time=n, correlation=f"i{n}", name=f"Name {n}")
        for n in range(200)
    ]
    async with KafkaLog(servers) as log:
        await log.create([TopicSpec(NAMES.wire(topic.name), topic.partitions) for topic in TOPICS])
        await log.append([to_outgoing(event, NAMES) for event in events])


def is_ready(answer: httpx.Response) -> bool:
    return answer.status_code == 200


async def test_rows_and_figures_then_the_broker_goes_for_good(broker: Broker, fold: Callable[..., Watched]) -> None:
    servers = (await asyncio.to_thread(broker.start)).bootstrap_servers
    await filled(servers)
    worker = fold(servers)
    worker.until("/ready", is_ready)
    row: dict[str, Any] = worker.until("/rows/companies/c-7", is_ready).json()
    assert row["row"]["name"] == "Name 7"
    assert row["at"][0] == NAMES.wire("company-data")
    assert row["folded"][row["at"][0]] > row["at"][2]
    assert worker.until("/rows/companies/nobody", lambda _: True).status_code == 404
    figures = worker.until("/metrics", lambda answer: "rillfold_events_folded_total 200.0" in answer.text).text
    assert "rillfold_dead_letters_total 0.0" in figures
    await asyncio.to_thread(broker.stop)
    why = worker.until("/ready", lambda answer: answer.status_code == 503).json()["why"]
    assert "the event log does not answer" in why
    assert worker.child.wait(30) == EX_SOFTWARE
    lines = worker.log.read_text().splitlines()
    assert len([line for line in lines if "ERROR streams.health.watchman: Stalled" in line]) == 1
    assert len(lines) < 200, "an outage of seconds is said in a few lines"


async def test_a_fold_that_blocks_is_not_ready_and_ends_and_the_next_goes_on(
    broker: Broker, fold: Callable[..., Watched]
) -> None:
    servers = (await asyncio.to_thread(broker.start)).bootstrap_servers
    await filled(servers)
    blocked = fold(servers, FAILPOINT="appended:2:HANG")
    why = blocked.until("/ready", lambda answer: "stands at" in answer.text).json()["why"]
    assert NAMES.wire("company-data") in why
    assert is_ready(blocked.until("/health", lambda _: True)), "it lives, and is not ready"
    assert blocked.child.wait(30) == EX_SOFTWARE
    again = fold(servers)
    again.until("/metrics", lambda answer: "rillfold_ready 1.0" in answer.text)
    for n in range(200):
        again.until(f"/rows/companies/c-{n}", is_ready)
    again.child.terminate()
    assert again.child.wait(10) == 0


async def test_a_bridge_and_a_trainer_are_watched_too(stack: Endpoints, fold: Callable[..., Watched]) -> None:
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create([TopicSpec(NAMES.wire(topic.name), topic.partitions) for topic in TOPICS])
    workers = [fold(stack.bootstrap_servers, command=name, STALL_SECONDS="25") for name in ("bridge", "train")]
    for worker in workers:
        worker.until("/ready", is_ready)
        worker.until("/metrics", lambda answer: "rillfold_ready 1.0" in answer.text)
    for worker in workers:
        worker.child.terminate()
        assert worker.child.wait(10) == 0


async def test_a_sink_is_watched_too(stack: Endpoints, fold: Callable[..., Watched]) -> None:
    await filled(stack.bootstrap_servers)
    assert stack.postgres_dsn is not None
    sink = fold(stack.bootstrap_servers, command="sink", POSTGRES_DSN=stack.postgres_dsn, STALL_SECONDS="25")
    folding = fold(stack.bootstrap_servers, STALL_SECONDS="25")
    sink.until("/metrics", lambda answer: "rillfold_rows_written_total 200.0" in answer.text)
    sink.until("/ready", is_ready)
    assert sink.until("/rows/companies/c-1", lambda _: True).status_code == 404
    with psycopg.connect(stack.postgres_dsn) as database:
        assert database.execute(f'SELECT count(*) FROM "{NAMES.prefix}rillfold".companies').fetchone() == (200,)
    for worker in (folding, sink):
        worker.child.terminate()
        assert worker.child.wait(10) == 0
