"""Kill the fold anywhere: its rows are those of a fresh fold of the log. On a real broker, with real processes."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from projections.companies import COMPANIES
from projections.company_tools import COMPANY_TOOLS
from projections.datasets import DATASETS
from rillfold.embedded.stack import Endpoints
from schemas.rejected import RecordRejected
from schemas.topics import TopicNames
from streams.fold.batch import Batch, decode_from
from streams.fold.failpoint import STEPS
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import RESERVED, RowCodec, topic_of
from streams.state.store import RocksStore

ONLY = [option for projection in (COMPANIES, COMPANY_TOOLS, DATASETS) for option in ("--only", projection.name)]
POISON = [b"", b"\xff\xfe not an event", b"{}", b'{"type": "no.such"}', b"\xc3\x01\x00\x00\x00\x00\x00\x00\x00\x00"]


async def test_a_worker_holds_the_rows_that_a_fresh_fold_gives(
    workers: Any, some_events: Any, produce: Any, agree: Any
):
    await produce(some_events(3000, 1))
    workers("a").start(*ONLY)
    assert await agree() > 100


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_between_two_steps_of_a_commit_costs_nothing(
    step: str, workers: Any, some_events: Any, produce: Any, agree: Any
):
    await produce(some_events(2000, 2))
    worker = workers("a")
    worker.start(*ONLY, failpoint=f"{step}:2")
    assert worker.ended() == -signal.SIGKILL
    await produce(some_events(2000, 3))
    worker.start(*ONLY)
    await agree()


async def test_killed_again_and_again_while_events_come_in(workers: Any, some_events: Any, produce: Any, agree: Any):
    seed = random.SystemRandom().randrange(1 << 30)
    sys.stdout.write(f"seed {seed}\n")
    rnd, pair = random.Random(seed), [workers("a"), workers("b")]
    for worker in pair:
        worker.start(*ONLY)
    for n in range(6):
        await produce(some_events(3000, seed + n))
        await asyncio.sleep(rnd.uniform(0, 4))
        worker = rnd.choice(pair)
        worker.kill()
        worker.start(*ONLY)
    await agree()


async def test_an_empty_disk_is_filled_from_the_changelog(
    workers: Any, some_events: Any, produce: Any, agree: Any, kafka: KafkaLog, names: TopicNames, tmp_path: Path
):
    await produce(some_events(3000, 4))
    first = workers("a")
    first.start(*ONLY)
    await agree()
    first.kill()
    shutil.rmtree(tmp_path / "a")
    await produce(some_events(500, 5))
    second = workers("a")
    second.start(*ONLY)
    await agree()
    second.send(signal.SIGTERM)
    assert second.ended() == 0, second.log()
    await local_rows_equal_the_changelog(kafka, names, tmp_path / "a" / "workers" / "a" / "tables")


async def local_rows_equal_the_changelog(kafka: KafkaLog, names: TopicNames, tables: Path) -> None:
    for projection in (COMPANIES, COMPANY_TOOLS, DATASETS):
        changelog, codec = topic_of(projection, names.prefix), RowCodec(projection.state)
        for partition, found in (await held(kafka, projection, changelog)).items():
            store = RocksStore(tables / changelog / str(partition))
            local = {k.decode(): codec.decode(v).row for k, v in store.scan() if not k.startswith(RESERVED)}
            store.close()
            assert local == found.rows, f"{changelog}/{partition}"


async def deleted(stack: Endpoints, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([topic])
    while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody when it is done
        await asyncio.sleep(0.05)
    await admin.close()


async def test_a_changelog_that_is_gone_is_folded_again_from_the_events(
    workers: Any, some_events: Any, produce: Any, agree: Any, stack: Endpoints, names: TopicNames
):
    await produce(some_events(3000, 6))
    worker = workers("a")
    worker.start(*ONLY)
    await agree()
    worker.kill()
    await deleted(stack, topic_of(DATASETS, names.prefix))
    worker.start(*ONLY)
    await agree()


async def test_a_worker_that_was_asleep_cannot_write_over_its_successor(
    workers: Any, some_events: Any, produce: Any, agree: Any
):
    """It falls asleep in the middle of a batch: folded, not yet in the changelog. It wakes up and sends it."""
    sleeper, successor = workers("a"), workers("b")
    sleeper.start(*ONLY, failpoint="published:4:SIGSTOP")
    await produce(some_events(2000, 7))
    await asleep(sleeper)
    await produce(some_events(2000, 8))
    successor.start(*ONLY)
    await agree()
    sleeper.send(signal.SIGCONT)
    assert await asyncio.to_thread(sleeper.ended) == 70
    assert "Another worker has claimed" in sleeper.log()
    await produce(some_events(2000, 9))
    await agree()


async def asleep(worker: Any) -> None:
    """Stopped by its own failpoint."""
    process = psutil.Process(worker.child.pid)
    async with asyncio.timeout(60):
        while process.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - a signal tells its receiver alone
            await asyncio.sleep(0.05)


async def test_what_is_no_event_is_kept_byte_for_byte(
    workers: Any, some_events: Any, produce: Any, agree: Any, kafka: KafkaLog, names: TopicNames
):
    await produce(some_events(1000, 10), POISON)
    workers("a").start(*ONLY)
    await agree()
    dead = await refused(kafka, names.wire("dead-letter"))
    assert sorted(event.value or b"" for event in dead) == sorted(POISON)
    assert len({(event.topic, event.partition, event.offset) for event in dead}) == len(POISON)


async def refused(kafka: KafkaLog, topic: str) -> list[RecordRejected]:
    events: list[RecordRejected] = []
    for partition, end in (await kafka.ends(topic)).items():
        async for records in kafka.read(topic, partition, 0, end):
            for _, event in decode_from(Batch(topic, partition, 0, end, records), 0, {RecordRejected}).events:
                assert isinstance(event, RecordRejected)
                events.append(event)
    return events
