"""Postgres dies and comes back under a sink and an API that run: they wait, nothing is lost, none ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from projections.companies import COMPANIES
from rillfold.embedded.ports import free_port
from rillfold.embedded.state import Endpoints
from rillfold.testing.driver import Driver
from schemas.topics import TopicNames
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from tests.kill.world import Servers, scratch


@pytest.fixture
def database() -> Iterator[Servers]:
    """Only its Postgres runs: one that this test may kill."""
    with scratch() as folder:
        servers = Servers(folder)
        servers.start_postgres()
        yield servers
        servers.stop()


@pytest.fixture
async def driver(stack: Endpoints, names: TopicNames) -> AsyncIterator[Driver]:
    async with KafkaLog(stack.bootstrap_servers, session_timeout=6.0) as log:
        await admin.create(log, names)
        async with Driver(log, [COMPANIES], names=names) as driver:
            yield driver


@contextmanager
def process(folder: Path, environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that says `ready`, and lives until it is stopped."""
    log = folder / f"{command[-1]}.log"
    with log.open("wb") as out:
        line = [sys.executable, "-m", "rillfold", *command]
        child = subprocess.Popen(line, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        yield child
        assert child.poll() is None, log.read_text()
        child.terminate()
        child.wait(30)
    finally:
        child.kill()
        child.wait()
        sys.stdout.write(f"--- {log.name}\n{log.read_text()}")


@pytest.fixture
async def api(stack: Endpoints, names: TopicNames, database: Servers, driver: Driver, tmp_path: Path) -> Any:
    """A client of a running API, with the admin's key; a sink runs beside it."""
    port = free_port()
    environment = {
        "RILLFOLD_PROVIDER": "external",
        "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "RILLFOLD_POSTGRES_DSN": database.dsn,
        "RILLFOLD_TOPIC_PREFIX": names.prefix,
        "RILLFOLD_DATA_DIR": str(tmp_path),
        "RILLFOLD_API_PORT": str(port),
    }
    with ExitStack() as running:
        for command in (("worker", "sink"), ("api",)):
            running.enter_context(process(tmp_path, environment, *command))
        await until(lambda: all((tmp_path / f"{name}.log").read_text().count("ready") for name in ("sink", "api")))
        key = (tmp_path / "api" / "admin.key").read_text().strip()
        options: Any = {"headers": {"Authorization": f"Bearer {key}"}, "trust_env": False, "timeout": 30.0}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", **options) as client:
            yield client


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.05)


async def registered(driver: Driver, *companies: str) -> str:
    """Folded. The place of the last one, for a query to know at least that much."""
    for company in companies:
        place = await driver.send({"type": "company.registered", "company": company, "name": company.title()})
    await driver.settle()
    return f"{place.topic}/{place.partition}/{place.offset}"


async def names_of(api: httpx.AsyncClient, place: str) -> set[str]:
    answer = await api.get("/projections/companies", params={"min_offset": place, "wait": 30})
    assert answer.status_code == 200, answer.text
    return {row["row"]["name"] for row in answer.json()["rows"]}


async def test_a_database_that_dies_and_returns(api: httpx.AsyncClient, driver: Driver, database: Servers) -> None:
    place = await registered(driver, "acme", "globex")
    assert await names_of(api, place) == {"Acme", "Globex"}
    assert (await api.get("/ready")).status_code == 200

    await asyncio.to_thread(database.kill_postgres)
    place = await registered(driver, "hooli", "initech")
    refused = await api.get("/projections/companies")
    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True), refused.text
    ready = await api.get("/ready")
    assert (ready.status_code, list(ready.json()["failing"])) == (503, ["database"])
    # What needs no database is done meanwhile.
    event = {"type": "company.registered", "company": "umbrella", "name": "Umbrella"}
    assert (await api.post("/topics/company-data", json=event)).status_code == 201

    await asyncio.to_thread(database.start_postgres)
    assert await names_of(api, place) >= {"Acme", "Globex", "Hooli", "Initech"}
    place = await registered(driver, "wonka")
    assert await names_of(api, place) == {"Acme", "Globex", "Hooli", "Initech", "Umbrella", "Wonka"}
    async with asyncio.timeout(60):
        while (await api.get("/ready")).status_code != 200:  # noqa: ASYNC110 - it answers for the moment
            await asyncio.sleep(0.2)
