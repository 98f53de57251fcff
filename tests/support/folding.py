"""Events with a seed, and real workers as child processes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from projections.companies import COMPANIES
from projections.company_tools import COMPANY_TOOLS
from projections.datasets import DATASETS
from projections.projection import Projection
from rillfold.embedded.stack import Endpoints
from schemas.company import CompanyRegistered, TextIngested, ToolAuth, ToolRegistered, ToolRevoked
from schemas.envelope import Event
from schemas.topics import TOPICS, TopicNames
from streams.errors import UnknownTopic
from streams.history.refold import Held, held, refold
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, TopicSpec
from streams.state.changelog import topic_of
from tests.support.worker import WorkerProcess, external

Make = Callable[[int, int], list[Event]]
Produce = Callable[..., Awaitable[None]]
Agree = Callable[..., Awaitable[int]]
FOLDED = (COMPANIES, COMPANY_TOOLS, DATASETS)


@pytest.fixture
def some_events() -> Make:
    """(count, seed) -> events of fifty companies, some of them twice."""
    return company_data


def company_data(count: int, seed: int) -> list[Event]:
    rnd = random.Random(seed)
    events: list[Event] = []
    for n in range(count):
        if events and rnd.random() < 0.05:
            events.append(events[-rnd.randrange(1, min(len(events), 8) + 1)])
        else:
            events.append(_event(rnd, n))
    return events


def _event(rnd: random.Random, n: int) -> Event:
    id_ = str(UUID(int=rnd.getrandbits(128)))
    company = f"company-{rnd.randrange(50)}"
    time = 1_700_000_000_000_000 + n
    match rnd.randrange(10):
        case 0:
            return CompanyRegistered(id=id_, company=company, time=time, correlation=id_, name=f"Name {n}")
        case 1 | 2:
            name, auth = f"tool-{rnd.randrange(5)}", ToolAuth(kind="none")
            return ToolRegistered(
                id=id_,
                company=company,
                time=time,
                correlation=id_,
                name=name,
                description=f"does {n}",
                parameters="{}",
                endpoint="https://example.com",
                auth=auth,
            )
        case 3:
            return ToolRevoked(id=id_, company=company, time=time, correlation=id_, name=f"tool-{rnd.randrange(5)}")
    entity = f"entity-{rnd.randrange(20)}"
    return TextIngested(id=id_, company=company, time=time, correlation=id_, entity=entity, text=f"text {n} " * 3)


@pytest.fixture
async def kafka(stack: Endpoints) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers) as log:
        yield log


@pytest.fixture
async def topics(kafka: KafkaLog, names: TopicNames) -> None:
    await kafka.create([TopicSpec(names.wire(topic.name), topic.partitions) for topic in TOPICS])


@pytest.fixture
def produce(kafka: KafkaLog, names: TopicNames, topics: None) -> Produce:
    """(events, poison) -> all of them on their topics, the poison in between."""

    async def produce(events: Sequence[Event], poison: Sequence[bytes] = ()) -> None:
        outgoing = [to_outgoing(event, names) for event in events]
        topic, places = names.wire("company-data"), random.Random(len(events))
        for value in poison:
            place = places.randrange(len(outgoing) + 1)
            outgoing.insert(place, Outgoing(topic, f"company-{place}".encode(), value))
        for start in range(0, len(outgoing), 5000):
            await kafka.append(outgoing[start : start + 5000])

    return produce


class NobodyFolds(Exception):
    """Every worker that was started has ended, and not all is folded."""


@pytest.fixture
def started() -> list[WorkerProcess]:
    """Every worker that the test has made."""
    return []


@pytest.fixture
def agree(kafka: KafkaLog, names: TopicNames, started: list[WorkerProcess]) -> Agree:
    """Waits until all sources are folded, then holds every row in the changelog against a fresh fold of the log."""

    def idle() -> bool:
        return bool(started) and not any(worker.alive for worker in started)

    async def agree(projections: Sequence[Projection[Any]] = FOLDED, timeout: float = 60) -> int:
        rows = 0
        for projection in projections:
            changelog = topic_of(projection, names.prefix)
            async with asyncio.timeout(timeout):
                found = await _caught_up(kafka, projection, changelog, names, idle)
            for partition, part in found.items():
                should = await refold(kafka, projection, names, partition, part)
                assert part.rows == should.rows, f"{changelog}/{partition}"
                assert not should.untaken and not part.unreadable
                rows += len(part.rows)
        return rows

    return agree


async def _caught_up(
    kafka: KafkaLog, projection: Projection[Any], changelog: str, names: TopicNames, idle: Callable[[], bool]
) -> Mapping[int, Held]:
    sources = [names.wire(topic) for topic in projection.topics]
    while True:
        nobody = idle()
        ends = {topic: await kafka.ends(topic) for topic in sources}
        try:
            found = await held(kafka, projection, changelog)
        except UnknownTopic:
            found = {}
        if found and all(found[p].markers.get(topic, 0) >= end for topic in sources for p, end in ends[topic].items()):
            return found
        if nobody:
            raise NobodyFolds(projection.name)
        await asyncio.sleep(0.2)


@pytest.fixture
def workers(
    stack: Endpoints, names: TopicNames, tmp_path: Path, started: list[WorkerProcess]
) -> Iterator[Callable[[str], WorkerProcess]]:
    """name -> a worker with a directory of its own, not started."""

    def make(name: str) -> WorkerProcess:
        environment = external(stack.bootstrap_servers, names.prefix, tmp_path / name)
        worker = WorkerProcess(name, ("worker", "fold", "--name", name), environment, tmp_path / "logs")
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.close()
        sys.stdout.write(f"--- {worker.name}\n{worker.log()}\n")
