"""A release that adds a projection and bumps another, brought in worker by worker while events come in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.assignor.partition_assignor import PartitionAssignor

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.access import KafkaAccess
from streams.log.memory import MemoryLog
from streams.owner.app import Worker, create_app
from streams.state.changelog import topic_of
from tests.support.asking import answered
from tests.support.folding import Agree, Make, Produce
from tests.support.two_versions import RELEASES
from tests.support.worker import WorkerProcess, external

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crew(
    stack: Endpoints, names: TopicNames, tmp_path: Path, started: list[WorkerProcess]
) -> Iterator[list[WorkerProcess]]:
    for name in ("a", "b"):
        environment = external(stack.bootstrap_servers, names.prefix, tmp_path / name, STALL_SECONDS="10")
        module = "tests.support.two_versions"
        started.append(WorkerProcess(name, (), environment | {"PYTHONPATH": str(ROOT)}, tmp_path / "logs", module))
    yield started
    for each in started:
        each.close()


async def ready(worker: WorkerProcess, data: Path) -> None:
    await asyncio.to_thread(answered, data, worker.name, "/ready", lambda answer: answer.status_code == 200, 90)


async def test_a_release_that_adds_and_bumps_projections_is_brought_in_worker_by_worker(
    crew: list[WorkerProcess], produce: Produce, some_events: Make, agree: Agree, tmp_path: Path
) -> None:
    """Each comes back before the group has missed it."""
    await produce(some_events(300, 1))
    for worker in crew:
        worker.start("first", worker.name)
    for worker in crew:
        await ready(worker, tmp_path / worker.name)
    for seed, worker in enumerate(crew, 2):
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.ended) == 0
        worker.start("next", worker.name)
        await produce(some_events(200, seed))
        await ready(worker, tmp_path / worker.name)
    await agree(RELEASES["next"])
    for worker in crew:
        await ready(worker, tmp_path / worker.name)
    assert "companies v2 for" in crew[0].said(), "what waits for the other to come over is named"
    assert "not folded until every worker of group" in crew[0].said()


class Cluster:
    def partitions_for_topic(self, _: str) -> set[int]:
        return set(range(4))


def member(name: str, release: str, names: TopicNames, tmp_path: Path) -> PartitionAssignor:
    worker = Worker(KafkaAccess("nowhere:9092"), "group", name, tmp_path / name, names)
    assignor: Any = create_app(worker, MemoryLog(), RELEASES[release]).assignor
    return assignor


def joins(release: str, assignor: PartitionAssignor, names: TopicNames) -> Any:
    sources = {names.wire(topic) for each in RELEASES[release] for topic in each.topics}
    return assignor.metadata(sources | {topic_of(each, names.prefix) for each in RELEASES[release]})


@pytest.mark.parametrize("leader", ["first", "next"])
def test_whoever_leads_a_group_of_two_releases_gives_each_member_something_that_it_can_take(
    leader: str, names: TopicNames, tmp_path: Path
) -> None:
    """Two of one release would follow each other's rows of a changelog that the leader does not know."""
    other = {"first": "next", "next": "first"}[leader]
    releases = {"c": leader, "a": other, "b": other}
    members = {name: member(name, release, names, tmp_path) for name, release in releases.items()}
    joined = {name: joins(release, members[name], names) for name, release in releases.items()}
    cluster: Any = Cluster()
    given = members["c"].assign(cluster, joined)
    for name, assignor in members.items():
        assignor.on_assignment(given[name])
    for source in {names.wire(topic) for each in RELEASES["next"] for topic in each.topics}:
        read = sorted(tp.partition for each in members.values() for tp in each.assigned_actives() if tp.topic == source)
        assert read == [0, 1, 2, 3]
    for name, assignor in members.items():
        received = {(topic, partition) for topic, each in given[name].assignment for partition in each}
        followed = {tp for tp in assignor.assigned_standbys() if tp.topic in assignor._table_manager.changelog_topics}
        assert followed <= received
