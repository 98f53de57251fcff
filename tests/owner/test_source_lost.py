"""A source that no longer holds what was folded of it: said by name, and nobody goes on elsewhere in silence."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from projections.companies import COMPANIES
from projections.jobs import JOBS
from projections.projection import Projection
from rillfold.embedded.state import Endpoints
from rillfold.workers.crew import READY
from schemas.company import CompanyRegistered
from schemas.jobs import JobRequested
from schemas.topics import TopicNames
from streams.errors import UnknownTopic
from streams.history.refold import Held, held
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec
from streams.state.changelog import Loss, topic_of
from tests.support.asking import answered
from tests.support.waiting import until
from tests.support.worker import WorkerProcess, asleep, external


@pytest.fixture
async def broker(stack: Endpoints) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def fold(stack: Endpoints, names: TopicNames, tmp_path: Path) -> Iterator[WorkerProcess]:
    only = [option for each in (COMPANIES, JOBS) for option in ("--only", each.name)]
    environment = external(stack.bootstrap_servers, names.prefix, tmp_path)
    worker = WorkerProcess("fold", ("worker", "fold", *only), environment, tmp_path)
    yield worker
    worker.close()
    sys.stdout.write(worker.log())


class World:
    """Companies, and jobs beside them."""

    def __init__(self, log: KafkaLog, names: TopicNames, fold: WorkerProcess, data: Path) -> None:
        self.log, self.names, self.fold, self._data = log, names, fold, data
        self.source, self.jobs = names.wire("company-data"), names.wire("automation-job")

    async def companies(self, partition: int, numbers: Iterable[int]) -> None:
        events = [
            CompanyRegistered(id=f"i{n}", company=f"c-{partition}-{n}", time=n, correlation=f"i{n}", name=f"Name {n}")
            for n in numbers
        ]
        await self.log.append([to_outgoing(each, self.names)._replace(partition=partition) for each in events])

    async def made_anew(self, topic: str, broker: AIOKafkaAdminClient, stack: Endpoints) -> None:
        await broker.delete_topics([topic])
        await self.made(topic, stack)

    async def made(self, topic: str, stack: Endpoints) -> None:
        async with asyncio.timeout(30), KafkaLog(stack.bootstrap_servers) as anew:
            while not await anew.create([TopicSpec(topic, 4)]):  # noqa: ASYNC110 - it is still being deleted
                await asyncio.sleep(0.1)

    async def aborted(self, partition: int, stack: Endpoints) -> None:
        """A record that nobody sees, and the end of its transaction: two offsets that hold nothing."""
        own = f"{self.names.prefix}aborted"
        async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, transactional_id=own) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(self.source, b"never", partition=partition)
            await producer.abort_transaction()

    async def job(self, partition: int, n: int) -> None:
        own = {"id": f"{partition}-{n}", "company": "acme", "time": 1, "correlation": "j", "job": f"j{n}"}
        event = JobRequested(**own, task="Refund order 7")
        await self.log.append([to_outgoing(event, self.names)._replace(partition=partition)])

    async def folded(self, topic: str, partition: int, next_: int) -> set[str]:
        """The rows of the partition, once its source is folded so far."""
        projection = COMPANIES if topic == self.source else JOBS
        async with asyncio.timeout(60):  # the broker tells nobody
            while (part := await self._part(projection, partition)) is None or part.markers.get(topic) != next_:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return set(part.rows)

    async def _part(self, projection: Projection[Any], partition: int) -> Held | None:
        try:
            return (await held(self.log, projection, topic_of(projection, self.names.prefix)))[partition]
        except UnknownTopic:
            return None  # no worker has begun

    async def why_not_ready(self, says: str = "is folded up") -> str:
        """Also as the log of the process has it."""
        ask = functools.partial(answered, self._data, "fold-1", "/ready", lambda answer: says in answer.text)
        answer = await asyncio.to_thread(ask)
        assert answer.status_code == 503
        assert answer.json()["why"].split(": docs")[0] in self.fold.said()
        return str(answer.json()["why"])

    async def ready(self) -> None:
        await asyncio.to_thread(answered, self._data, "fold-1", "/ready", lambda answer: answer.status_code == 200)

    def lag(self, topic: str, partition: int) -> float:
        figures = answered(self._data, "fold-1", "/metrics", lambda answer: "rillfold_ready 0.0" in answer.text).text
        label = f'rillfold_lag{{partition="{partition}",topic="{topic}"}} '
        return next(float(line.removeprefix(label)) for line in figures.splitlines() if line.startswith(label))

    def start(self, accepted: Mapping[str, int] = {}) -> None:
        self.fold.environment["RILLFOLD_ACCEPT_LOSS"] = json.dumps(accepted)
        self.fold.start()

    async def lost(self, projection: Projection[Any]) -> list[Loss]:
        parts = await held(self.log, projection, topic_of(projection, self.names.prefix))
        return [loss for _, part in sorted(parts.items()) for loss in part.lost]

    async def stop(self) -> None:
        self.fold.send(signal.SIGTERM)
        assert await asyncio.to_thread(self.fold.ended) == 0


@pytest.fixture
def world(kafka: KafkaLog, names: TopicNames, topics: None, fold: WorkerProcess, tmp_path: Path) -> World:
    return World(kafka, names, fold, tmp_path)


async def test_what_is_not_in_the_log_any_more_is_not_passed_until_an_operator_says_so(
    world: World, broker: AIOKafkaAdminClient, stack: Endpoints
) -> None:
    """Deleted while the worker sleeps, and while it is stopped; and a topic that is made anew, stopped and at work."""
    asleep_on, stopped_on, anew_on = f"{world.source}/1", f"{world.source}/2", f"{world.jobs}/0"
    for partition in (1, 2):
        await world.companies(partition, range(30))
    for n in range(3):
        await world.job(0, n)
    world.start()
    for topic, partition, next_ in ((world.source, 1, 30), (world.source, 2, 30), (world.jobs, 0, 3)):
        await world.folded(topic, partition, next_)
    await world.aborted(1, stack)
    await world.companies(3, range(3))
    await world.folded(world.source, 3, 3)
    world.fold.send(signal.SIGSTOP)
    await asyncio.to_thread(until, "sleep", lambda: asleep(world.fold), 30)
    for partition in (0, 1, 2):
        await world.companies(partition, range(30, 50))
    await broker.delete_records({TopicPartition(world.source, 1): RecordsToDelete(45)})
    world.fold.send(signal.SIGCONT)
    why = await world.why_not_ready()
    assert re.search(rf"{asleep_on} is folded up to 3[02] and holds .45, 52.: .3[02], 45. was deleted before", why)
    assert f'"{asleep_on}@30": 45' in why
    assert "not folded until" not in world.fold.said()
    assert world.lag(world.source, 1) == 22
    await world.folded(world.source, 0, 20)
    await world.folded(world.source, 2, 50)
    await world.stop()

    await world.companies(2, range(50, 60))
    await broker.delete_records({TopicPartition(world.source, 2): RecordsToDelete(55)})
    await world.made_anew(world.jobs, broker, stack)
    for partition in range(4):
        await world.job(partition, 7)
    await world.companies(0, range(60, 70))
    world.start()
    why = await world.why_not_ready()
    assert f"{asleep_on} is folded up to 30" in why
    assert f"{stopped_on} is folded up to 50 and holds [55, 60)" in why
    assert f"{anew_on} is folded up to 3 and holds [0, 1): its topic was made anew" in why
    assert f'{{"{anew_on}@3": OFFSET}}' in why
    assert world.lag(world.jobs, 0) == -2
    assert f"ready but for {anew_on}, " in world.fold.said(), "who waits for it waits no longer, and is told"
    assert READY.search(world.fold.said())[0].endswith(f"{stopped_on}: /ready says why")
    await world.folded(world.source, 0, 30)
    await world.folded(world.jobs, 3, 1)
    for topic, partition, next_ in ((world.source, 1, 30), (world.source, 2, 50), (world.jobs, 0, 3)):
        await world.folded(topic, partition, next_)
    await world.stop()

    # What follows from the job of another partition stands in this one, and has filled it up by now.
    assert f"{world.jobs}/1 is folded up to 2 and holds [0, " in why
    world.start({f"{asleep_on}@30": 45, f"{stopped_on}@50": 55, f"{anew_on}@3": 0, f"{world.jobs}/1@2": 0})
    await world.ready()
    assert await world.folded(world.source, 1, 52) == named(1, [*range(30), *range(43, 50)])
    assert await world.folded(world.source, 2, 60) == named(2, [*range(50), *range(55, 60)])
    assert await world.folded(world.jobs, 0, 1) == {"acme/j0", "acme/j1", "acme/j2", "acme/j7"}
    assert await world.lost(COMPANIES) == [Loss(world.source, 1, 30, 45), Loss(world.source, 2, 50, 55)]
    assert await world.lost(JOBS) == [Loss(world.jobs, 0, 3, 0), Loss(world.jobs, 1, 2, 0)]

    await broker.delete_topics([world.jobs])
    why = await world.why_not_ready("was deleted while")
    assert f"{world.jobs} was deleted while group" in why and why.count("was deleted") == 1
    await world.companies(0, range(70, 71))
    await world.folded(world.source, 0, 31)
    await world.made(world.jobs, stack)
    why = await world.why_not_ready()
    assert f"{anew_on} is folded up to 1 and holds [0, 0): its topic was made anew" in why
    assert "was deleted while" not in why
    assert "not folded until" not in world.fold.said()
    for n in range(5, 8):
        await world.job(0, n)
    await world.stop()

    world.start()
    why = await world.why_not_ready()
    assert f"{anew_on} is folded up to 1 and holds [0, 3): it held [0, 0) when that was seen" in why
    await world.stop()
    world.start(offered(why))
    await world.ready()
    # Three jobs, and what follows from one of them.
    assert await world.folded(world.jobs, 0, 4) == {f"acme/j{n}" for n in (0, 1, 2, 5, 6, 7)}
    assert {Loss(world.jobs, 0, 3, 0), Loss(world.jobs, 0, 1, 0)} <= set(await world.lost(JOBS))


def offered(why: str) -> dict[str, int]:
    """As an operator takes them over who knows that all of it was made anew."""
    offers = re.findall(r"RILLFOLD_ACCEPT_LOSS='(\{.*?\})'", why)
    return {place: 0 for offer in offers for place in json.loads(offer.replace("OFFSET", "0"))}


def named(partition: int, numbers: Iterable[int]) -> set[str]:
    return {f"c-{partition}-{n}" for n in numbers}
