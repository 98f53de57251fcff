"""Postgres behind TLS: who names its authority writes and asks there, and nobody says a word to a stranger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from projections.companies import COMPANIES
from rillfold.cli import rillfold
from rillfold.embedded.ports import HOST, free_port
from rillfold.embedded.state import Endpoints
from rillfold.testing.driver import Driver
from schemas.topics import TopicNames
from streams.errors import DatabaseAway
from streams.log.kafka.log import KafkaLog
from streams.read_model.database import DatabaseNotTrusted, named
from streams.read_model.reads import Reads
from tests.support.certificates import Authority
from tests.support.tls_door import WANTS_TLS, TlsDoor, tls_door
from tests.support.waiting import until
from tests.support.worker import WorkerProcess, external

WAIT = 120.0


class Behind(NamedTuple):
    """A database with a door, and who has signed what the door shows."""

    door: TlsDoor
    root: Path
    stranger: Path
    """Another authority."""
    namesake: Path
    """Another one of the same name, as after a renewal."""

    def dsn(self, root: Path | None = None, host: str = HOST) -> str:
        place = f"host={host} port={self.door.port} user=postgres dbname=postgres"
        return f"{place} sslmode=verify-full sslrootcert={root or self.root}"


@pytest.fixture
def behind(stack: Endpoints, tmp_path: Path) -> Iterator[Behind]:
    own, names = Authority("authority"), ("root", "stranger", "namesake", "shown")
    root, stranger, namesake, shown = (tmp_path / f"{name}.pem" for name in names)
    root.write_bytes(own.certificate)
    stranger.write_bytes(Authority("stranger").certificate)
    namesake.write_bytes(Authority("authority").certificate)
    shown.write_bytes(own.key_and_certificate(HOST))
    place = urlsplit(stack.postgres_dsn or "")
    with tls_door((place.hostname or HOST, place.port or 5432), shown) as door:
        yield Behind(door, root, stranger, namesake)


@pytest.fixture
async def driver(kafka: KafkaLog, names: TopicNames, topics: None) -> AsyncIterator[Driver]:
    async with Driver(kafka, [COMPANIES], names=names) as driver:
        yield driver


def environment(stack: Endpoints, names: TopicNames, dsn: str, folder: Path, **more: str) -> dict[str, str]:
    return external(stack.bootstrap_servers, names.prefix, folder, POSTGRES_DSN=dsn, **more)


def cli(given: Mapping[str, str], *line: str, code: int = 0) -> str:
    done = CliRunner().invoke(rillfold, line, env=dict(given))
    told = f"{done.output}{done.exception or ''}"
    assert done.exit_code == code, told
    return " ".join(told.split())


async def test_who_names_the_right_authority_writes_and_asks_and_who_names_another_is_told_so(
    behind: Behind, stack: Endpoints, names: TopicNames, driver: Driver, tmp_path: Path, started: list[WorkerProcess]
) -> None:
    """The sink, the API and commands, each with either root."""
    port, other = free_port(), free_port()
    right = environment(stack, names, behind.dsn(), tmp_path / "right", API_PORT=str(port))
    wrong = environment(stack, names, behind.dsn(behind.stranger), tmp_path / "wrong", API_PORT=str(other))
    logs = tmp_path / "logs"
    for name, given in (("right", right), ("wrong", wrong)):
        started.append(WorkerProcess(f"sink-{name}", ("worker", "sink"), given, logs).start())
        started.append(WorkerProcess(f"api-{name}", ("api",), given, logs).start())
    sink, api, lost, unsure = started
    try:
        place = await driver.send({"type": "company.registered", "company": "acme", "name": "Acme"})
        await driver.settle()
        for each in (sink, api, unsure):
            await asyncio.to_thread(each.until_ready, WAIT)
        after = {"min_offset": f"{place.topic}/{place.partition}/{place.offset}", "wait": 30}
        answer = await ask(port, tmp_path / "right", "/projections/companies", after)
        assert (answer.status_code, [row["row"]["name"] for row in answer.json()["rows"]]) == (200, ["Acme"])
        assert "Acme" in await asyncio.to_thread(cli, right, "query", "companies")
        assert "Postgres answers" in await asyncio.to_thread(cli, right, "doctor", "--json")

        assert await asyncio.to_thread(lost.ended, WAIT) == 1
        assert_told(lost.said())
        answer = await ask(other, tmp_path / "wrong", "/projections/companies", {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopped"), answer.text
        answer = await ask(other, tmp_path / "wrong", "/ready", {})
        assert (answer.status_code, list(answer.json()["failing"])) == (503, ["database"])
        await asyncio.to_thread(until, "told", lambda: "not trusted" in unsure.said(), 30)
        assert_told(unsure.said())
        for line in (("query", "companies"), ("doctor", "--json")):
            assert_told(await asyncio.to_thread(cli, wrong, *line, code=1))
    finally:
        for each in started:
            each.close()


def assert_told(said: str) -> None:
    """What is wrong, and what to set."""
    said = " ".join(said.split())
    assert "certificate verify failed" in said, said
    assert "Name in RILLFOLD_POSTGRES_DSN the authority that signed its certificate (sslrootcert=)" in said, said


async def ask(port: int, folder: Path, path: str, given: Mapping[str, Any]) -> httpx.Response:
    key = (folder / "api" / "admin.key").read_text().strip()
    options: Any = {"headers": {"Authorization": f"Bearer {key}"}, "trust_env": False, "timeout": 60.0}
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", **options) as client:
        return await client.get(path, params=dict(given))


async def test_who_cannot_be_trusted_is_told_no_password_and_named(behind: Behind, tmp_path: Path) -> None:
    """Another name than its certificate's, a root that is not there, and one that speaks no TLS."""
    absent = tmp_path / "none.pem"
    async with await asyncio.start_server(_speaks_none, HOST, 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        cases = {
            behind.dsn(behind.namesake): "SSL error",
            behind.dsn(host="localhost"): "does not match host name",
            behind.dsn(absent): f'root certificate file "{absent}" does not exist',
            f"host={HOST} port={port} sslmode=require": "server does not support SSL, but SSL was required",
        }
        for dsn, why in cases.items():
            async with Reads(dsn, "nobody", 5.0) as reads:
                with pytest.raises(DatabaseNotTrusted) as refused:
                    await reads.ping()
                assert why in str(refused.value)
    await asyncio.to_thread(until, "turned away", lambda: behind.door.turned_away >= 1, 10)
    async with Reads(behind.dsn(), "nobody", 5.0) as reads:
        await reads.ping()
    assert behind.door.let_in >= 1


async def _speaks_none(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(WANTS_TLS))
    writer.write(b"N")
    await reader.read()
    writer.close()


REFUSED = 'connection failed: connection to server at "{}", port 5432 failed: {}'.format
EXPIRED = REFUSED("10.0.0.9", "SSL error: certificate verify failed: certificate has expired")


@pytest.mark.parametrize(
    "what",
    [
        "SSL connection has been closed unexpectedly",
        "SSL error: decryption failed or bad record mac",
        "connection failed: SSL error: unexpected eof while reading",
        "connection failed: SSL SYSCALL error: Connection reset by peer",
        "connection failed: Connection refused",
        REFUSED("certificates-db.internal", "Connection refused"),
        REFUSED("10.0.0.9", 'FATAL:  database "certificates" does not exist'),
        REFUSED("10.0.0.9", "FATAL:  connection requires a valid client certificate"),
        REFUSED("10.0.0.9", 'FATAL:  role "server certificate for x, SSL error" does not exist'),
        REFUSED("10.0.0.9", "SSL error: tlsv13 alert certificate required"),
    ],
)
def test_a_connection_that_breaks_or_is_refused_is_tried_again(what: str) -> None:
    assert isinstance(named(psycopg.OperationalError(what)), DatabaseAway)


LISTED = "\nMultiple connection attempts failed. All failures were:\n- host: 'a', port: '5432', hostaddr: '10.0.0.9': "


@pytest.mark.parametrize(
    "what",
    [
        EXPIRED,
        REFUSED("10.0.0.9", 'root certificate file "/etc/geoffrey/ca.pem" does not exist'),
        REFUSED("10.0.0.9", 'could not read root certificate file "/etc/ca.pem": no certificate or crl found'),
        f"{REFUSED('10.0.0.8', 'Connection refused')}{LISTED}{EXPIRED}",
        f"connection timeout expired{LISTED}{EXPIRED}",
        f"{REFUSED('10.0.0.9', 'FATAL:  no encryption')}\n{EXPIRED.removeprefix('connection failed: ')}",
    ],
)
def test_whom_libpq_does_not_believe_is_named_whatever_else_was_tried(what: str) -> None:
    assert isinstance(named(psycopg.OperationalError(what)), DatabaseNotTrusted)
