"""A real worker that is made to stand: it says so, is not ready, and ends with 70. On a real broker."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from rillfold.embedded.state import Endpoints
from schemas.company import CompanyRegistered
from schemas.topics import TOPICS, TopicNames
from streams.health.watchman import EX_SOFTWARE
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from tests.support.asking import asked
from tests.support.broker import OwnBroker
from tests.support.worker import WorkerProcess, external

NAMES = TopicNames("w-")


class Watched:
    def __init__(self, folder: Path, servers: str, command: str = "fold --only companies", **settings: str) -> None:
        name = command.split()[0]
        self._data, self._name = folder / "data", f"{name}-1"
        self.token = folder / "data" / "operator" / "token"
        given = {"STALL_SECONDS": "4", "STALL_EXIT_SECONDS": "3", **settings}
        environment = external(servers, NAMES.prefix, folder / "data", **given)
        self.process = WorkerProcess(name, ("worker", *command.split()), environment, folder).start()

    def asked(self, path: str) -> httpx.Response | None:
        """None while nobody listens."""
        known = path.startswith("/rows") and self.token.exists()
        bearer = {"Authorization": f"Bearer {self.token.read_text()}"} if known else {}
        return asked(self._data, self._name, path, **bearer)

    def until(self, path: str, found: Callable[[httpx.Response], bool], seconds: float = 60) -> httpx.Response:
        stop = time.monotonic() + seconds
        while (answer := self.asked(path)) is None or not found(answer):
            assert time.monotonic() < stop, f"{path}: {answer and answer.text}\n{self.process.log()}"
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
        worker.process.close()


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


async def test_rows_and_figures_then_the_broker_goes_for_good(broker: OwnBroker, fold: Callable[..., Watched]) -> None:
    servers = await asyncio.to_thread(broker.start)
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
    assert worker.process.ended(30) == EX_SOFTWARE
    lines = worker.process.log().splitlines()
    assert len([line for line in lines if "ERROR streams.health.watchman: Stalled" in line]) == 1
    assert len(lines) < 200, "an outage of seconds is said in a few lines"


async def test_a_fold_that_blocks_is_not_ready_and_ends_and_the_next_goes_on(
    broker: OwnBroker, fold: Callable[..., Watched]
) -> None:
    servers = await asyncio.to_thread(broker.start)
    await filled(servers)
    blocked = fold(servers, FAILPOINT="appended:2:HANG")
    why = blocked.until("/ready", lambda answer: "stands at" in answer.text).json()["why"]
    assert NAMES.wire("company-data") in why
    assert is_ready(blocked.until("/health", lambda _: True)), "it lives, and is not ready"
    assert blocked.process.ended(30) == EX_SOFTWARE
    again = fold(servers)
    again.until("/metrics", lambda answer: "rillfold_ready 1.0" in answer.text)
    for n in range(200):
        again.until(f"/rows/companies/c-{n}", is_ready)
    again.process.send(signal.SIGTERM)
    assert again.process.ended(10) == 0


async def test_a_bridge_and_a_trainer_are_watched_too(stack: Endpoints, fold: Callable[..., Watched]) -> None:
    async with KafkaLog(stack.bootstrap_servers) as log:
        await log.create([TopicSpec(NAMES.wire(topic.name), topic.partitions) for topic in TOPICS])
    workers = [fold(stack.bootstrap_servers, command=name, STALL_SECONDS="25") for name in ("bridge", "train")]
    for worker in workers:
        worker.until("/ready", is_ready)
        worker.until("/metrics", lambda answer: "rillfold_ready 1.0" in answer.text)
    for worker in workers:
        worker.process.send(signal.SIGTERM)
        assert worker.process.ended(10) == 0


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
        worker.process.send(signal.SIGTERM)
        assert worker.process.ended(10) == 0
