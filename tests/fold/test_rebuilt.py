"""A rebuild has no effects: what was told and sent when events were new is not told and sent again."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from processors.saga import ACTING_JOBS
from projections.companies import COMPANIES
from projections.datasets import DATASETS
from projections.jobs import JOBS
from projections.sessions import SESSIONS
from rillfold.embedded.stack import Endpoints
from rillfold.testing.driver import Driver
from schemas.codec.codec import decode
from schemas.jobs import JobRequested
from schemas.rejected import Rejected
from schemas.topics import TopicNames
from streams.errors import SourcesRenamed
from streams.fold.failpoint import STEPS
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.port import TopicSpec
from streams.state.changelog import topic_of
from tests.support.worker import external

POISON = b"no event"
EFFECTS = ("automation-job", "inference-request", "tool-call")


def job(n: int) -> JobRequested:
    return JobRequested(id=f"r-{n}", company="acme", time=1, correlation=f"r-{n}", job=f"j{n}", task="Refund order 7")


async def poisoned(driver: Driver) -> None:
    """On a topic of several projections, one of which has several topics."""
    for n in range(3):
        await driver.send_bytes("automation-job", POISON, b"acme/j")
        await driver.send_bytes("company-data", POISON, b"acme")
        await driver.send(job(n))


async def told(driver: Driver) -> Counter[tuple[str, int, int]]:
    return Counter((letter.topic, letter.partition, letter.offset) for letter in await driver.dead_letters())


async def test_a_first_start_tells_each_refused_record_once():
    log = MemoryLog()
    async with Driver(log, []) as driver:
        await poisoned(driver)
    async with Driver(log, [SESSIONS, ACTING_JOBS, COMPANIES]) as driver:
        await driver.settle()
        assert (await told(driver)).most_common(1)[0][1] == 1
        assert len(await told(driver)) == 6


@pytest.mark.parametrize("step", STEPS)
async def test_a_start_that_is_broken_off_and_begins_again_tells_each_once(step: str):
    """What was told before the crash stands in the log, and is found there."""
    log = MemoryLog()
    async with Driver(log, []) as driver:
        await poisoned(driver)
    async with Driver(log, [SESSIONS, ACTING_JOBS, COMPANIES]) as driver:
        await driver.crash("worker-1", at=step, passes=2)
        await driver.settle()
        assert set((await told(driver)).values()) == {1}


@pytest.mark.parametrize("group", ["the same", "another"])
async def test_a_projection_that_is_new_tells_nothing_again(group: str):
    log = MemoryLog()
    async with Driver(log, [COMPANIES, JOBS]) as driver:
        await poisoned(driver)
        await driver.settle()
        first = await told(driver)
    if group == "another":
        log._groups.clear()
    async with Driver(log, [COMPANIES, DATASETS, JOBS, SESSIONS]) as driver:
        await driver.settle()
        assert await told(driver) == first
        await poisoned(driver)
        await driver.settle()
        assert set((await told(driver)).values()) == {1}
        assert len(await told(driver)) == 2 * len(first)


async def test_a_topic_map_that_was_changed_is_noticed_and_nothing_is_folded_over_the_old_rows():
    log, renamed = MemoryLog(), TopicNames(renamed={"company-data": "acme-events"})
    company = {"type": "company.registered", "company": "acme", "name": "Acme"}
    async with Driver(log, [COMPANIES]) as driver:
        await driver.send(company)
        await driver.settle()
        was = await driver.digest(COMPANIES)
    async with Driver(log, [COMPANIES], names=renamed) as driver:
        await driver.send(company | {"name": "Other"})
        with pytest.raises(SourcesRenamed, match="folded from company-data, and the topic map names acme-events now"):
            await driver.settle()
    async with Driver(log, [COMPANIES]) as driver:
        await driver.settle()
        assert await driver.digest(COMPANIES) == was


async def told_and_sent(kafka: KafkaLog, names: TopicNames) -> Counter[str]:
    """How often each thing was said by a worker."""
    said: Counter[str] = Counter()
    for topic in ("dead-letter", *EFFECTS):
        wire = names.wire(topic)
        for partition, end in (await kafka.ends(wire)).items():
            async for records in kafka.read(wire, partition, 0, end):
                events = [decode(record.value, record.origin, record.timestamp) for record in records]
                said.update(f"{event.type} {event.id}" for event in events if not isinstance(event, Rejected))
    return said


async def test_a_worker_in_a_group_of_its_own_sends_and_tells_nothing_again(
    workers: Any, agree: Any, kafka: KafkaLog, names: TopicNames, stack: Endpoints
):
    """Its group has committed nothing, its disk is empty, and the changelog is gone."""
    async with Driver(kafka, [ACTING_JOBS, SESSIONS], names=names) as driver:
        await poisoned(driver)
        await driver.settle()
        was = await told_and_sent(kafka, names)
        assert sum(what.startswith("record.rejected") for what in was) == 6 - 3
        assert sum(what.startswith("inference.requested") for what in was) == 3
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([topic_of(ACTING_JOBS, names.prefix)])
    await admin.close()
    workers("b").start("--only", ACTING_JOBS.name, "--only", SESSIONS.name)
    await agree((ACTING_JOBS, SESSIONS))
    assert await told_and_sent(kafka, names) == was


async def test_the_steps_of_folding_anew_delete_the_changelogs_of_this_prefix_alone_and_say_so(
    kafka: KafkaLog, names: TopicNames, stack: Endpoints, tmp_path: Path
) -> None:
    """As the page for operators has them. Another installation's prefix may begin with what our changelogs do."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (script,) = re.findall(r"^  python - <<'EOF'\n(.*?)^  EOF$", page, re.M | re.S)
    ours = [topic_of(ACTING_JOBS, names.prefix), topic_of(COMPANIES, names.prefix)]
    others = [topic_of(COMPANIES, f"{names.prefix}rillfold-staging-"), f"{names.prefix}company-data"]
    await kafka.create([TopicSpec(name, 1) for name in (*ours, *others)])
    environment = {**os.environ, **external(stack.bootstrap_servers, names.prefix, tmp_path)}
    run = [sys.executable, "-c", textwrap.dedent(script)]
    said = await asyncio.to_thread(subprocess.check_output, run, env=environment, text=True, timeout=60)
    assert sorted(said.splitlines()) == sorted(f"{name} is deleted" for name in ours)
    assert (await kafka.describe([*ours, *others])).keys() == set(others)
