"""Record batches that would fill any memory, straight to Kafka: a real worker, and every other way to read the log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from processors.saga import ACTING_JOBS
from projections.companies import COMPANIES, Company
from rillfold.embedded.state import Endpoints
from schemas.codec.codec import decode, encode
from schemas.company import CompanyRegistered
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing, Record
from streams.state.changelog import topic_of
from tests.fold.test_exact import refused as dead_letters
from tests.fold.test_refused_live import ask

MIB = 1 << 20
BOMBS = [("gzip", 300, 1), ("zstd", 400, 1), ("lz4", 200, 1), ("zstd", 200, 30), ("gzip", 100, 10)]
"""How it is packed, its MiB, and in how many records."""
OPENED, PARTITIONS = 16, 4
"""Batches of 28 MiB in seven records. Each of them fits. Not all at once."""
MOST_MIB = 500
"""Of a worker's memory, which is 200 without any of this, and was more than 2,000 when batches were opened unseen."""

FEW_MIB = 600
"""Of one that goes over old ground, which was 2,100 when it counted records and not their bytes."""


@pytest.fixture
def zeros() -> Iterator[bytes]:
    yield bytes(400 * MIB)


@pytest.fixture
def heavy() -> bytes:
    """4 MiB that take a few of their bytes when they are packed, and not next to nothing."""
    return Random(1).randbytes(80_000) + bytes(4 * MIB - 80_000)


async def send(stack: Endpoints, topic: str, how: str, value: bytes, size: int, count: int, partition: int = 0) -> None:
    options: dict[str, Any] = {"max_batch_size": 1 << 30, "max_request_size": 1 << 30, "compression_type": how}
    async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, **options) as producer:
        batch = producer.create_batch()
        for _ in range(count):
            batch.append(timestamp=None, key=b"evil", value=memoryview(value)[: (size // count) * MIB])
        await (await producer.send_batch(batch, topic, partition=partition))


def registered(n: int) -> Outgoing:
    own = {"id": f"other-{n}", "company": "other", "time": 1_000_000 + n, "correlation": f"other-{n}"}
    return Outgoing("", b"other", encode(CompanyRegistered(**own, name=f"name {n}")), partition=0)


def most_memory(pid: int) -> int:
    """In MiB, at any time so far."""
    (size,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(size) >> 10


async def test_a_batch_that_would_fill_the_memory_is_passed_over(
    workers: Any,
    stack: Endpoints,
    kafka: KafkaLog,
    names: TopicNames,
    topics: None,
    agree: Any,
    zeros: bytes,
    heavy: bytes,
):
    data = names.wire("company-data")
    worker = workers("a")
    sent = [(await kafka.append([registered(0)._replace(topic=data)]))[0].offset]
    for how, size, count in BOMBS:
        await send(stack, data, how, zeros, size, count)
        sent += [(await kafka.append([registered(len(sent))._replace(topic=data)]))[0].offset]
    for n in range(OPENED):
        await send(stack, data, "zstd", heavy, 28, 7, partition=n % PARTITIONS)
    sent += [(await kafka.append([registered(len(sent))._replace(topic=data)]))[0].offset]
    worker.start("--only", COMPANIES.name)
    await agree((COMPANIES,), timeout=120)
    assert worker.alive
    assert most_memory(worker.child.pid) < MOST_MIB, most_memory(worker.child.pid)

    rows = (await held(kafka, COMPANIES, topic_of(COMPANIES, names.prefix)))[0].rows
    row = rows["other"]
    assert isinstance(row, Company) and row.name == f"name {len(sent) - 1}"
    letters = [letter for letter in await dead_letters(kafka, names.wire("dead-letter")) if letter.topic == data]
    of_bombs = [letter for letter in letters if letter.partition == 0 and letter.offset < sent[len(BOMBS)]]
    whole = {letter.offset: letter for letter in of_bombs}
    assert [*sorted(whole)] == [offset + 1 for offset in sent[: len(BOMBS)]]
    for letter in whole.values():
        assert (letter.reason, letter.company, letter.key) == ("too_large", "unknown", None)
        assert letter.value is not None and 1_000 < len(letter.value) < MIB
    (digest,) = ask(worker, "projection", "digest", COMPANIES.name, "--refold")
    assert digest["served"] == digest["refolded"]

    # A worker that begins again, and one with an empty disk, pass over it as well.
    worker.kill()
    await kafka.append([registered(99)._replace(topic=data)])
    worker.start("--only", COMPANIES.name)
    await agree((COMPANIES,), timeout=120)
    assert len([x for x in await dead_letters(kafka, names.wire("dead-letter")) if x.topic == data]) == len(letters)


async def test_who_takes_over_several_sources_holds_a_few_of_them_at_once(
    workers: Any, stack: Endpoints, kafka: KafkaLog, names: TopicNames, topics: None, agree: Any, heavy: bytes
):
    jobs = names.wire("automation-job")
    for _ in range(24):
        await send(stack, jobs, "zstd", heavy, 28, 7)
    await kafka.append([registered(0)._replace(topic=jobs)])  # at home elsewhere: one letter more
    worker = workers("a")
    worker.start("--only", ACTING_JOBS.name)
    await agree((ACTING_JOBS,), timeout=180)
    assert worker.alive
    assert most_memory(worker.child.pid) < FEW_MIB
    assert len([x for x in await dead_letters(kafka, names.wire("dead-letter")) if x.topic == jobs]) == 24 * 7 + 1


async def test_every_reader_of_the_log_sees_one_record_for_it(
    stack: Endpoints, kafka: KafkaLog, names: TopicNames, topics: None, zeros: bytes
):
    topic = names.wire("training-request")
    await kafka.append([Outgoing(topic, b"k", b"before", partition=0)])
    await send(stack, topic, "zstd", zeros, 200, 30)
    await kafka.append([Outgoing(topic, b"k", b"after", partition=0)])
    found: list[Record] = [record async for batch in kafka.read(topic, 0, 0) for record in batch]
    polled: list[Record] = []
    async with kafka.subscribe(f"{topic}-readers", [topic]) as subscription, asyncio.timeout(60):
        while len(polled) < 3:
            for records in (await subscription.poll(timeout=1.0, limit=2)).values():
                polled += records
    assert found == polled
    assert [record.offset for record in found] == [0, 1, 31]
    assert [record.value for record in found][::2] == [b"before", b"after"]
    refused = decode(found[1].value, found[1].origin, found[1].timestamp)
    assert isinstance(refused, Rejected) and refused.reason == "too_large"
    one = [record async for batch in kafka.read(topic, 0, 1, 2) for record in batch]
    assert one == found[1:2]
