"""JSON without an id gets one from its place in the log: no two records share it, and every reader derives the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpu_workers.inbox.begun import request_in
from projections.training_runs import TRAINING_RUNS
from schemas.codec.codec import decode
from schemas.topics import BY_NAME, TopicNames
from schemas.training import TrainingRequested
from streams.fold.batch import Batch, decode_from, fold
from streams.fold.view import View
from streams.log.kafka.admin import wanted
from streams.log.port import EventLog, Outgoing, Record

WISH = b'{"type": "training.requested", "company": "%s", "base_model": "b"}'
PREFIXES = ("", "acme.", "globex.")


async def read(log: EventLog, topic: str) -> list[Record]:
    found = []
    for partition in await log.ends(topic):
        async for batch in log.read(topic, partition, 0, (await log.ends(topic))[partition]):
            found += batch
    return found


def keys_by_fold(records: list[Record]) -> set[str]:
    rows: set[str] = set()
    for record in records:
        batch = Batch(record.topic, record.partition, record.offset, record.offset + 1, [record])
        rows |= fold(TRAINING_RUNS, decode_from(batch, 0, {TrainingRequested}).events, lambda _: {}).rows.keys()
    return rows


@pytest.fixture
async def wished(log: EventLog, names: TopicNames) -> Callable[[str], TopicNames]:
    """The same two identical lines of two companies, under three prefixes of one broker."""
    for prefix in PREFIXES:
        own = TopicNames(names.prefix + prefix)
        await log.create(wanted(own, [BY_NAME["training-request"]]))
        for company in (b"acme", b"globex"):
            await log.append([Outgoing(own.wire("training-request"), company, WISH % company)] * 2)
    return lambda prefix: TopicNames(names.prefix + prefix)


async def test_no_two_records_get_one_id_whatever_the_prefix(log: EventLog, wished) -> None:
    records = [r for prefix in PREFIXES for r in await read(log, wished(prefix).wire("training-request"))]
    events = [decode(r.value, r.origin, r.timestamp, r.headers) for r in records]
    assert len({event.id for event in events}) == len(events) == 4 * len(PREFIXES)


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_fold_view_and_trainer_name_a_run_alike(log: EventLog, wished, prefix: str) -> None:
    """Otherwise the wish and its outcome would be two rows."""
    names = wished(prefix)
    records = await read(log, names.wire("training-request"))
    should = keys_by_fold(records)
    taken = [request for record in records if (request := request_in(record, TrainingRequested)) is not None]
    assert len(should) == 4
    assert {f"{request.company}/{request.id}" for request in taken} == should
    assert set(await View(log, names, TRAINING_RUNS).catch_up()) == should
