"""Postgres dies and comes back under a sink and an API that run: they wait, nothing is lost, none ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psycopg
import pytest

from projections.companies import COMPANIES
from rillfold.api.health import SECONDS
from rillfold.embedded.ports import free_port
from rillfold.embedded.state import Endpoints
from rillfold.testing.driver import Driver
from schemas.topics import TopicNames
from streams.errors import DatabaseAway, NoReadModel
from streams.health.watchman import EX_SOFTWARE
from streams.log.kafka import admin
from streams.log.kafka.log import KafkaLog
from streams.read_model.questions import OF_ONE
from streams.read_model.reads import Reads
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


def begun(folder: Path, environment: dict[str, str], *command: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / f"{command[-1]}.log"
    with log.open("wb") as out:
        line = [sys.executable, "-m", "rillfold", *command]
        return subprocess.Popen(line, env={**os.environ, **environment}, stdout=out, stderr=out), log


@contextmanager
def process(folder: Path, environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that says `ready`, and lives until it is stopped."""
    child, log = begun(folder, environment, *command)
    try:
        yield child
        assert child.poll() is None, log.read_text()
        child.terminate()
        child.wait(30)
    finally:
        child.kill()
        child.wait()
        sys.stdout.write(f"--- {log.name}\n{log.read_text()}")


def reaching(stack: Endpoints, names: TopicNames, database: Servers, folder: Path) -> dict[str, str]:
    return {
        "RILLFOLD_PROVIDER": "external",
        "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "RILLFOLD_POSTGRES_DSN": database.dsn,
        "RILLFOLD_TOPIC_PREFIX": names.prefix,
        "RILLFOLD_DATA_DIR": str(folder),
    }


@pytest.fixture
async def api(stack: Endpoints, names: TopicNames, database: Servers, driver: Driver, tmp_path: Path) -> Any:
    """A client of a running API, with the admin's key; a sink runs beside it."""
    port = free_port()
    environment = reaching(stack, names, database, tmp_path) | {"RILLFOLD_API_PORT": str(port)}
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


async def test_a_database_that_hangs_is_named_in_seconds(
    api: httpx.AsyncClient, driver: Driver, database: Servers, tmp_path: Path
) -> None:
    """It refuses nothing. As many strangers as like may ask whether all stands: writes go on."""
    place = await registered(driver, "acme")
    assert await names_of(api, place) == {"Acme"}
    assert (await api.get("/ready")).status_code == 200
    await asyncio.sleep(SECONDS)
    with database.hanging_postgres():
        begun = time.monotonic()
        answers = await asyncio.gather(*(api.get("/ready") for _ in range(300)))
        assert time.monotonic() - begun < 10, "all in one, and none behind another"
        assert {answer.status_code for answer in answers} <= {200, 503}
        ready = await api.get("/ready")
        assert (ready.status_code, list(ready.json()["failing"])) == (503, ["database"])
        figures = json.loads((tmp_path / "run" / "api.json").read_text())["url"]
        ready = await api.get(f"{figures}/ready")
        assert (ready.status_code, ready.json()["why"]) == (503, "the database does not answer")
        event = {"type": "company.registered", "company": "umbrella", "name": "Umbrella"}
        assert (await api.post("/topics/company-data", json=event)).status_code == 201
    async with asyncio.timeout(60):
        while (await api.get("/ready")).status_code != 200:  # noqa: ASYNC110 - it answers for the moment
            await asyncio.sleep(0.2)
    assert await names_of(api, place) >= {"Acme"}


async def test_a_question_to_a_database_that_hangs_is_given_up(database: Servers) -> None:
    """On kept connections and on new ones, and in the line before them; whatever hung is not used again."""
    async with Reads(database.dsn, "nobody", 1.0) as reads:
        with pytest.raises(NoReadModel):
            await reads.positions(COMPANIES, "acme")
        with database.hanging_postgres():
            asked = [reads.changed(COMPANIES, company, {}) for company in ("acme", "globex") for _ in range(OF_ONE + 8)]
            async with asyncio.timeout(30):
                found = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in found} == {DatabaseAway}
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await reads.ping()
        await reads.ping()
        with pytest.raises(NoReadModel):
            await reads.positions(COMPANIES, "acme")


async def test_whoever_leaves_costs_no_connection(database: Servers) -> None:
    """As a feed's client does: what it asked is cancelled until it ends."""
    async with (
        await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as beside,
        Reads(database.dsn, "nobody", 30.0) as reads,
    ):
        await beside.execute("CREATE SCHEMA nobody")
        columns = "projection text, version int, topic text, partition int, next bigint"
        await beside.execute(f"CREATE TABLE nobody.positions ({columns})".encode())
        assert await reads.positions(COMPANIES, "acme") == {}
        kept = await others(beside)
        assert len(kept) == 1
        for _ in range(5):
            async with beside.transaction():
                await beside.execute("LOCK TABLE nobody.positions IN ACCESS EXCLUSIVE MODE")
                with anyio.move_on_after(0.2) as left:
                    await reads.positions(COMPANIES, "acme")
                assert left.cancelled_caught
            await asyncio.sleep(0.1)
            assert await reads.positions(COMPANIES, "acme") == {}
        assert await others(beside) == kept


async def others(beside: psycopg.AsyncConnection[Any]) -> set[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return {pid for (pid,) in await (await beside.execute(query)).fetchall()}


async def test_a_sink_whose_database_hangs_is_seen_to_stall(
    stack: Endpoints, names: TopicNames, database: Servers, driver: Driver, tmp_path: Path
) -> None:
    """Its watchman ends it; a supervisor starts it anew, and it goes on where the read model ends."""
    environment = reaching(stack, names, database, tmp_path)
    environment |= {"RILLFOLD_STALL_SECONDS": "3", "RILLFOLD_STALL_EXIT_SECONDS": "3"}
    child, log = begun(tmp_path, environment, "worker", "sink")
    try:
        await until(lambda: "ready" in log.read_text())
        await registered(driver, "acme")
        with database.hanging_postgres():
            await registered(driver, "globex")
            assert await asyncio.to_thread(child.wait, 60) == EX_SOFTWARE, log.read_text()
    finally:
        child.kill()
        child.wait()
    assert "Stalled" in log.read_text()
