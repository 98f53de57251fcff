"""Jobs that are taken back while the fold is dead: taken back when it returns, and nothing said twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from processors.saga import ACTING_JOBS
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.inference import InferenceRequested
from schemas.jobs import JobWithdrawn
from schemas.topics import TopicNames
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.state.changelog import topic_of
from tests.jobs.test_jobs_in_the_log import model, request

pytestmark = pytest.mark.usefixtures("topics")
NOW = 1_700_000_000_000_000
JOBS = ("j1", "j2")


def taken_back(job: str) -> JobWithdrawn:
    return JobWithdrawn(id=f"w-{job}", company="acme", time=NOW, correlation=f"r-{job}", job=job)


async def said(kafka: KafkaLog, names: TopicNames, topic: str) -> list[Any]:
    wire, found = names.wire(topic), list[Any]()
    for partition, end in (await kafka.ends(wire)).items():
        async for records in kafka.read(wire, partition, 0, end):
            found += [decode(record.value, record.origin, record.timestamp) for record in records]
    return found


async def test_what_is_taken_back_while_the_fold_is_dead_stays_so_and_asks_nothing_more(
    workers: Any, agree: Any, kafka: KafkaLog, names: TopicNames
) -> None:
    async def say(*events: Event) -> None:
        for event in events:  # each later than the one before it: a restart reads by time
            await kafka.append([to_outgoing(event, names)])
            await asyncio.sleep(0.01)

    fold = workers("a").start("--only", ACTING_JOBS.name).until_ready()
    await say(*map(request, JOBS))
    async with asyncio.timeout(60):
        while len(asked := await said(kafka, names, "inference-request")) < 2:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.1)
    questions: dict[str, InferenceRequested] = {each.job: each for each in asked}
    fold.kill()
    # The answers hold a call. One job is taken back before its answer came, the other after it.
    await say(taken_back("j1"), *model(questions["j1"], NOW), *model(questions["j2"], NOW), taken_back("j2"))
    for _ in range(2):
        fold.start("--only", ACTING_JOBS.name).until_ready()
        await agree((ACTING_JOBS,))
        calls = await said(kafka, names, "tool-call")
        assert [call.job for call in calls] == ["j2"]
        assert len(await said(kafka, names, "inference-request")) == len(JOBS)
        fold.kill()
    kept = await held(kafka, ACTING_JOBS, topic_of(ACTING_JOBS, names.prefix))
    rows = {key: row for part in kept.values() for key, row in part.rows.items()}
    assert {key: (row.status, len(row.replies)) for key, row in rows.items()} == {
        "acme/j1": ("withdrawn", 1),
        "acme/j2": ("withdrawn", 1),
    }
