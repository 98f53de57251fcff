"""Fixtures for every suite. `--backend` decides which logs a test that asks for `log` runs on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from rillfold.embedded.stack import Endpoints, running
from schemas.topics import TopicNames
from streams.kafka import KafkaLog
from streams.log import EventLog
from streams.memory import MemoryLog


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=("memory", "kafka", "all"), default="all", help="the logs to test on")
    parser.addoption(
        "--kill", action="store_true", help="also run one short seed of the kill loop; `make kill` runs ten long ones"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The kill loop's seeds are drawn by chance: a gate for every change must not be."""
    return True if collection_path.name == "test_kill_loop.py" and not config.getoption("--kill") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", ["memory", "kafka"] if chosen == "all" else [chosen])


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """A real broker and a real database: those the environment names, or embedded ones for this session."""
    servers = os.environ.get("RILLFOLD_BOOTSTRAP_SERVERS")
    if servers:
        yield Endpoints(bootstrap_servers=servers, postgres_dsn=os.environ.get("RILLFOLD_POSTGRES_DSN"))
        return
    # Not below pytest's own folder: that is closed to the user under which a root's Postgres runs.
    with TemporaryDirectory(prefix="rillfold-stack-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder), postgres=True) as endpoints:
            yield endpoints


@pytest.fixture
def names() -> TopicNames:
    """A prefix of its own for each test: tests share one broker."""
    return TopicNames(f"t{uuid4().hex[:10]}-")


@pytest.fixture
async def log(backend: str, request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    if backend == "memory":
        yield MemoryLog()
        return
    endpoints: Endpoints = request.getfixturevalue("stack")
    async with KafkaLog(endpoints.bootstrap_servers, session_timeout=6.0) as kafka:
        yield kafka
