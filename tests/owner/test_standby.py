"""What one worker folds, another keeps a copy of: whoever takes over has most rows already."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from projections.companies import COMPANIES
from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import topic_of
from streams.state.store import RocksStores
from tests.support.folding import Agree, Make, Produce
from tests.support.worker import WorkerProcess

ONES = 3
"""A partition that the first worker keeps when a second one joins."""


def copies(data_dir: Path, changelog: str, partitions: int) -> Mapping[int, int]:
    """Up to which offset a worker that has ended holds each partition."""
    found = {}
    for partition in range(partitions):
        store = RocksStores(data_dir / "workers" / "two" / "tables").open(changelog, partition)
        found[partition] = -1 if (position := store.position()) is None else position
        store.close()
    return found


async def ready(worker: WorkerProcess, times: int) -> None:
    end = time.monotonic() + 60
    while worker.log().count("ready") < times:
        assert time.monotonic() < end, "not ready"
        await asyncio.sleep(0.1)


async def test_a_worker_keeps_up_with_partitions_that_another_folds(
    workers: Callable[[str], WorkerProcess],
    produce: Produce,
    agree: Agree,
    some_events: Make,
    kafka: KafkaLog,
    names: TopicNames,
    tmp_path: Path,
) -> None:
    changelog = topic_of(COMPANIES, names.prefix)
    await produce(some_events(500, 1))
    one, two = workers("one"), workers("two")
    one.start()
    await agree()
    for seed in range(2, 7):  # how far behind a copy is, nobody says: a slow machine gets more tries
        two.start()
        await ready(two, seed - 1)
        await produce(some_events(500, seed))
        await agree()
        await asyncio.sleep(2 * seed)
        ends = await kafka.ends(changelog)
        two.send(signal.SIGTERM)
        assert two.ended() == 0
        found = copies(tmp_path / "two", changelog, len(ends))
        if all(found[partition] >= end - 1 for partition, end in ends.items()):
            return
    raise AssertionError(f"copies {found} of {ends}")


async def test_a_copy_whose_changelog_lost_its_beginning_is_not_taken_over_as_if_it_were_whole(
    workers: Callable[[str], WorkerProcess],
    produce: Produce,
    agree: Agree,
    some_events: Make,
    kafka: KafkaLog,
    names: TopicNames,
    stack: Endpoints,
) -> None:
    changelog = topic_of(COMPANIES, names.prefix)
    await produce(some_events(500, 1))
    one, two = workers("one"), workers("two")
    one.start()
    await agree()
    end = (await kafka.ends(changelog))[ONES]
    await produce(some_events(100, 2))
    await agree()
    broker = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await broker.start()
    deletes = ConfigResource(ConfigResourceType.TOPIC, changelog, {"cleanup.policy": "compact,delete"})
    await broker.alter_configs([deletes])
    await broker.delete_records({TopicPartition(changelog, ONES): RecordsToDelete(end)})
    await broker.close()
    two.start()
    await said(two, "No copy is kept", "ready")
    one.kill()
    await said(two, "needs 0: rows in between are lost", "The worker cannot go on")


async def said(worker: WorkerProcess, *words: str) -> None:
    end = time.monotonic() + 60
    while not all(each in worker.said() for each in words):
        assert time.monotonic() < end, worker.said()[-2000:]
        await asyncio.sleep(0.1)
