"""A seek that comes while the group gives its partitions out anew: nothing is folded twice for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from projections.company_tools import COMPANY_TOOLS
from rillfold.embedded.state import Endpoints
from schemas.company import ToolAuth, ToolRegistered
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.support.folding import Agree
from tests.support.late_seek import BEGINS
from tests.support.waiting import until
from tests.support.worker import WorkerProcess, external

ROOT = Path(__file__).parents[2]
PARTITIONS, COMMITTED = range(4), 20


@pytest.fixture
def both(
    stack: Endpoints, names: TopicNames, tmp_path: Path, started: list[WorkerProcess]
) -> Iterator[tuple[WorkerProcess, WorkerProcess, WorkerProcess]]:
    """One alone; the same when it comes back, and looks for long; another that joins it meanwhile."""
    alone = ("worker", "fold", "--only", COMPANY_TOOLS.name, "--name")
    for name, command, module in (
        ("a", (*alone, "a"), "rillfold"),
        ("a", ("a",), "tests.support.late_seek"),
        ("b", (*alone, "b"), "rillfold"),
    ):
        environment = external(stack.bootstrap_servers, names.prefix, tmp_path / name, SESSION_TIMEOUT="3")
        logs = tmp_path / f"logs-{len(started)}"
        started.append(WorkerProcess(name, command, environment | {"PYTHONPATH": str(ROOT)}, logs, module))
    yield started[0], started[1], started[2]
    for each in started:
        each.close()


async def registered(log: KafkaLog, names: TopicNames, numbers: range) -> None:
    """A tool in each partition, again and again: its revision counts them."""
    events = [
        ToolRegistered(
            id=f"e{n}-{p}", company=f"c{p}", time=n, correlation=f"e{n}-{p}", name="t", description=f"d{n}",
            parameters="{}", endpoint="https://example.com", auth=ToolAuth(kind="none"),
        )
        for n in numbers
        for p in PARTITIONS
    ]  # fmt: skip
    await log.append([to_outgoing(e, names)._replace(partition=int(e.company[1:])) for e in events])


async def go_back(servers: str, group: str, topic: str) -> None:
    """The group's place is far behind the markers, as after a crash. It is changed once nobody is a member."""
    member = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await member.start()
    places = {TopicPartition(topic, partition): COMMITTED for partition in PARTITIONS}
    member.assign(list(places))
    try:
        async with asyncio.timeout(60):
            while True:
                with suppress(KafkaError):
                    return await member.commit(places)
                await asyncio.sleep(0.2)
    finally:
        await member.stop()


async def test_what_lies_between_the_groups_place_and_the_marker_is_folded_once(
    both: tuple[WorkerProcess, WorkerProcess, WorkerProcess],
    stack: Endpoints,
    kafka: KafkaLog,
    names: TopicNames,
    topics: None,
    agree: Agree,
) -> None:
    alone, late, other = both
    await registered(kafka, names, range(100))
    alone.start()
    await agree([COMPANY_TOOLS])
    alone.stop()
    await go_back(stack.bootstrap_servers, f"{names.prefix}rillfold-company_tools", names.wire("company-data"))
    await registered(kafka, names, range(100, 120))
    late.start()
    await asyncio.to_thread(until, "it looks", lambda: BEGINS in late.said(), 120)
    other.start()
    await agree([COMPANY_TOOLS])
