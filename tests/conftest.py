"""Fixtures for every suite. `--backend` decides which logs a test that asks for `log` runs on."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.port import EventLog
from tests.support import cards, lanes, programs
from tests.support.servers import at_hand, chosen

METER = lanes.Meter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=("memory", "kafka", "all"), default="all", help="the logs to test on")
    parser.addoption(
        "--kill",
        action="store_true",
        help="also one short seed of the kill loop (`make kill`: ten long ones), and the demo broken off in every part",
    )
    parser.addoption(programs.OPTION, action="store_true", help="fail what would be skipped for want of a program")


def pytest_runtest_setup(item: pytest.Item) -> None:
    programs.look(item)
    cards.look(item)


def pytest_configure(config: pytest.Config) -> None:
    # Nothing here is timed: a busy machine is no fault of what is tested.
    settings.register_profile("suite", deadline=None)
    settings.load_profile("suite")
    # A shell starts its background jobs with SIGINT ignored, which their children keep: some of ours are sent it.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each lane is told a width; what commands say into a pipe has none.
    os.environ.pop("COLUMNS", None)
    # They name the suite's servers. A test that starts a stack of its own must not hear of them.
    chosen()
    if lanes.tests_run_here(config):
        for name in ("RILLFOLD_BOOTSTRAP_SERVERS", "RILLFOLD_POSTGRES_DSN"):
            os.environ.pop(name, None)


def pytest_report_header() -> str:
    choice = chosen()
    return f"servers: {choice.servers} ({choice.why})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    report.processor_seconds = METER.since()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds = lanes.processor_seconds()
    terminalreporter.write_line(f"processor seconds, with all that was started and has ended: {seconds:.0f}")
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "nodeid")]
    for file, spent in lanes.costliest(reports):
        terminalreporter.write_line(f"{spent:8.1f} of them in {file}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lanes.rank)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A lane hands its reports on as UTF-8, whatever a test has logged."""
    return lanes.sayable((yield))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return lanes.scheduler(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Moments drawn by chance are not for a gate that every change must pass."""
    by_chance = collection_path.name in ("test_kill_loop.py", "test_broken_off.py")
    return True if by_chance and not config.getoption("--kill") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", ["memory", "kafka"] if chosen == "all" else [chosen])


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """A real broker and a real database, started once. pytest's header says which ones."""
    with at_hand() as endpoints:
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
