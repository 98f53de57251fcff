"""Records that no worker may die of, straight to Kafka: real workers, killed in between, and another company beside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from projections.companies import COMPANIES, Company
from projections.jobs import JOBS, Job
from projections.memories import MEMORIES
from rillfold.embedded.state import Endpoints
from schemas.codec.codec import encode
from schemas.codec.writer import long
from schemas.company import CompanyRegistered
from schemas.envelope import Event
from schemas.jobs import JobStepped
from schemas.memory import MemoryNoted
from schemas.topics import TopicNames
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing
from streams.state.changelog import topic_of
from tests.fold.test_exact import refused as dead_letters
from tests.support.worker import WorkerProcess

FOLDED = (COMPANIES, MEMORIES, JOBS)
ONLY = [option for projection in FOLDED for option in ("--only", projection.name)]
QUOTES = '"' * 60_000
STEPS = 14


def own(n: int, company: str) -> dict[str, Any]:
    return {"id": f"{company}-{n}", "company": company, "time": 1_000_000 + n, "correlation": f"{company}-{n}"}


def company(n: int) -> Event:
    return CompanyRegistered(**own(n, "other"), name=f"name {n}")


def step(n: int, detail: str = QUOTES) -> Event:
    return JobStepped(**own(n, "evil"), job="j", step=n, kind="x", detail=detail)


def noted(quotes: int) -> bytes:
    """As any client writes it: what our own writers make of so many is their matter."""
    text = encode(MemoryNoted(**own(0, "evil"), memory="m", text="X" * 10))
    return text.replace(long(10) + b"X" * 10, long(quotes) + b'"' * quotes)


@pytest.fixture
async def put(kafka: KafkaLog, names: TopicNames, topics: None) -> Any:
    """Into partition 0 of a topic, where all companies meet."""

    async def put(topic: str, *events: Event | bytes) -> None:
        values = [event if isinstance(event, bytes) else encode(event) for event in events]
        await kafka.append([Outgoing(names.wire(topic), b"k", value, partition=0) for value in values])

    return put


@pytest.fixture
async def stranger(stack: Endpoints, topics: None) -> AsyncIterator[AIOKafkaProducer]:
    """A client that sends what the protocol lets it."""
    options = {"max_batch_size": 64 << 20, "max_request_size": 64 << 20, "compression_type": "gzip"}
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, **options)
    await producer.start()
    yield producer
    await producer.stop()


SENT = Random(1).randbytes(600_000)
"""Cannot be packed: so much may be unpacked as well."""


async def strange(producer: AIOKafkaProducer, topic: str) -> int:
    """Returns how many records it has sent."""
    records: list[dict[str, Any]] = [
        {"key": b"evil", "value": (SENT + bytes(20 << 20))[: 20 << 20], "headers": [("h", b"x" * 100)]},
        {"key": SENT[:100_000] + b"k" * (2 << 20), "value": b"{}"},
        {"key": b"\xff\x00", "value": b"\xff", "headers": [("null", None), ("", b"")]},
        {"key": b"evil", "value": b'{"type":"no"}', "headers": [(f"h{n}", b"") for n in range(20_000)]},
        {"key": None, "value": None, "headers": [("null", None)]},
        {"key": b"evil", "value": ('{"' + "x" * 50_000 + '": 1}').encode()},
    ]
    for record in records:
        batch = producer.create_batch()
        assert batch.append(timestamp=-1, **record) is not None
        await (await producer.send_batch(batch, topic, partition=0))
    return len(records)


async def no_utf8(stack: Endpoints, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers)
    await producer.start()
    batch = producer.create_batch()
    batch.append(timestamp=None, key=b"evil", value=b"\xff", headers=[("HEAD", b"x")])
    raw = bytearray(batch._build())
    at = raw.index(b"HEAD")
    raw[at : at + 4] = b"\xff\xfe\xfdA"
    raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
    batch._buffer = bytes(raw)
    await (await producer.send_batch(batch, topic, partition=0))
    await producer.stop()


def ask(worker: WorkerProcess, *command: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "rillfold", *command, "--json"],
        env={**os.environ, **worker.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout)


async def test_what_a_record_says_ends_no_worker_and_holds_nobody_up(
    workers: Any,
    put: Any,
    stranger: Any,
    stack: Endpoints,
    kafka: KafkaLog,
    names: TopicNames,
    agree: Any,
    tmp_path: Path,
):
    data = names.wire("company-data")
    worker = workers("a")
    await put("company-data", company(0), noted(600_000), company(1))
    await put("automation-job", *(step(n) for n in range(STEPS)), step(99, "small"))
    sent = await strange(stranger, data)
    await no_utf8(stack, data)
    await put("company-data", company(2))
    worker.start(*ONLY, failpoint="appended:2")
    assert worker.ended() == -signal.SIGKILL
    worker.start(*ONLY)
    await agree(FOLDED, timeout=120)

    # Everybody else's events are folded, and so is what of the same row fits.
    rows = (await held(kafka, COMPANIES, topic_of(COMPANIES, names.prefix)))[0].rows
    assert rows["other"] == Company(company="other", name="name 2", registered_at=1_000_000, updated_by="other-2")
    job = (await held(kafka, JOBS, topic_of(JOBS, names.prefix)))[0].rows["evil/j"]
    assert isinstance(job, Job)
    kept = [line.step for line in job.history]
    assert kept[-1] == 99
    assert 5 < len(kept) < STEPS

    # Each of the others is refused by name, once: as an event of this projection, or as no event at all.
    told = ask(worker, "projection", "refused")
    of_jobs = [each for each in told if each["projection"] == JOBS.name]
    assert [each["offset"] for each in of_jobs] == [n for n in range(STEPS) if n not in kept]
    said = {(each["company"], each["reason"], each["version"]) for each in of_jobs}
    assert said == {("evil", "row_too_large", JOBS.version)}
    letters = await dead_letters(kafka, names.wire("dead-letter"))
    dead = {letter.offset for letter in letters}
    memories = {each["offset"] for each in told if each["projection"] == MEMORIES.name}
    assert len({1} & dead) + len({1} & memories) == 1
    assert dead - {1} == set(range(3, 3 + sent + 1))
    large = next(letter for letter in letters if letter.offset == 3)
    assert large.headers[0].key == "rillfold-cut"
    assert large.headers[0].value == b"%d" % ((20 << 20) + 4 + 101)
    spelled = next(letter for letter in letters if letter.offset == 3 + sent)
    assert spelled.headers[0].key == "\\xff\\xfe\\xfdA"
    assert ask(worker, "projection", "refused", JOBS.name, "--company", "other") == []

    # A fresh fold obeys, and says what it left out.
    (digest,) = ask(worker, "projection", "digest", JOBS.name, "--refold")
    assert digest["served"] == digest["refolded"]
    assert (digest["refused"], digest["untaken"], digest["unreadable"]) == (len(of_jobs), 0, 0)

    # Not tried again, not said again: by the same worker after it was killed, and by a fresh disk.
    worker.kill()
    await put("company-data", company(3))
    worker.start(*ONLY)
    await agree(FOLDED, timeout=120)
    assert ask(worker, "projection", "refused") == told
    for each in told:
        assert worker.log().count(f"refuses the event at {each['topic']}/0/{each['offset']} ") <= 1
    await put("automation-job", step(100))
    address = msgspec.json.decode((tmp_path / "a" / "run" / "a.json").read_bytes())["url"]
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client, asyncio.timeout(30):
        one = f'rillfold_refused_events_total{{projection="{JOBS.name}"}} 1.0'
        while one not in (figures := (await client.get("/metrics")).text):  # noqa: ASYNC110 - figures tell nobody
            await asyncio.sleep(0.1)
        assert 'rillfold_refused_events_total{projection="companies"} 0.0' in figures
        assert (await client.get("/ready")).status_code == 200
