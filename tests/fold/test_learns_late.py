"""A refusal is a fact: what a registry learns later, or a release, changes nothing of what was refused when it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from processors.dataset.turns import Manifest
from projections.companies import COMPANIES
from projections.datasets import DATASETS
from rillfold.demo import data
from rillfold.embedded.stack import Endpoints
from rillfold.testing.driver import Driver
from schemas.codec.catalog import catalog
from schemas.codec.codec import encode
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.errors import ShutOut
from streams.history.letters import letters
from streams.history.redrive import Redriven, redrive
from streams.history.refold import held, refold
from streams.history.replay import build
from streams.log.kafka.log import KafkaLog
from streams.log.kafka.registry import learner
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing
from streams.state.changelog import topic_of
from tests.support.registry import LocalRegistry, local_registry
from tests.support.training import conversations

NUMBER = 1
TALKS = conversations(data.ACME, 40)
COMPANY = TALKS[0].company
NOW = 1_700_000_000_000_000


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with local_registry() as server:
        yield server
    catalog().by_id.clear()


def learn() -> None:
    catalog().by_id[NUMBER] = catalog().by_class[type(TALKS[0])]


def framed(names: TopicNames, events: Sequence[Event]) -> list[Outgoing]:
    """As a producer with the registry's serializer sends them."""
    sent = [to_outgoing(event, names) for event in events]
    return [each._replace(value=b"\x00" + NUMBER.to_bytes(4, "big") + encode(event)[10:])
            for each, event in zip(sent, events, strict=True)]  # fmt: skip


def events_in(rows: Mapping[str, Any]) -> int:
    return sum(row.events for row in rows.values())


async def dataset(log: EventLog, names: TopicNames, folder: Path, stops: Sequence[OffsetRange], rule: int) -> Manifest:
    return await build(log, names, COMPANY, stops, folder / "rows", rule=rule)


async def everything(log: EventLog, names: TopicNames) -> list[OffsetRange]:
    ends = await log.ends(names.wire("company-data"))
    return [OffsetRange(topic="company-data", partition=p, start=0, stop=end) for p, end in ends.items()]


@pytest.mark.parametrize("rule", [1, 2, 3])
async def test_a_manifest_from_before_is_verified_and_after_a_redrive_each_event_teaches_once(
    rule: int, tmp_path: Path, registry: LocalRegistry
) -> None:
    log, names = MemoryLog(), TopicNames()
    async with Driver(log, [DATASETS]) as driver:
        await log.append(framed(names, TALKS))
        await driver.settle()
        ranges = await everything(log, names)
        before = await dataset(log, names, tmp_path, ranges, rule)
        assert (before.rejected, before.trained) == (40, 0)
        learn()
        assert await dataset(log, names, tmp_path, ranges, rule) == before
        assert await driver.digest(DATASETS) == await driver.refold(DATASETS)

        found = await letters(log, names, lambda _: True)
        assert (await redrive(log, names, [kept.letter for kept in found], NOW)).sent == 40
        await driver.settle()
        assert await driver.digest(DATASETS) == await driver.refold(DATASETS)
        after = await dataset(log, names, tmp_path, await everything(log, names), rule)
        assert (after.records, after.rejected) == (80, 40)
    async with Driver(known := MemoryLog(), []):
        await known.append(framed(names, TALKS))
        alone = await dataset(known, names, tmp_path, await everything(known, names), rule)
    assert (after.trained, after.held_out) == (alone.trained, alone.held_out) != (0, 0)


async def test_a_projection_that_is_folded_anew_leaves_out_what_the_others_have_refused(
    registry: LocalRegistry,
) -> None:
    log, names = MemoryLog(), TopicNames()
    async with Driver(log, [COMPANIES]) as driver:
        await log.append(framed(names, TALKS))
        await driver.settle()
    learn()
    async with Driver(log, [COMPANIES, DATASETS]) as driver:
        await log.append(framed(names, TALKS[:1]))
        await driver.settle()
        assert sum(map(events_in, driver._rows(DATASETS).values())) == 1
        assert await driver.digest(DATASETS) == await driver.refold(DATASETS)
        assert len(await driver.dead_letters()) == 40


async def test_workers_and_their_refold_say_the_same_however_late_the_registry_learned(
    workers: Any, kafka: KafkaLog, names: TopicNames, topics: None, stack: Endpoints, registry: LocalRegistry
) -> None:
    topic, changelog = names.wire("company-data"), topic_of(DATASETS, names.prefix)

    async def folded() -> int:
        """Events in the rows, which are a refold's, when the last record is folded."""
        last = {n: [batch async for batch in kafka.read(topic, n, 0)] for n in await kafka.ends(topic)}
        ends = {n: batches[-1][-1].offset + 1 for n, batches in last.items() if batches}
        found = await held(kafka, DATASETS, changelog)
        while any(found[n].markers.get(topic, 0) < end for n, end in ends.items()):
            await asyncio.sleep(0.1)
            found = await held(kafka, DATASETS, changelog)
        for n, part in found.items():
            assert part.rows == (await refold(kafka, DATASETS, names, n, part)).rows
        return sum(events_in(part.rows) for part in found.values())

    worker = workers("a")
    worker.environment["RILLFOLD_SCHEMA_REGISTRY"] = registry.url
    await kafka.append(framed(names, TALKS))
    worker.start("--only", DATASETS.name).until_ready()
    assert await folded() == 0

    assert registry.add(json.dumps(catalog().by_class[type(TALKS[0])].source)) == NUMBER
    async with KafkaLog(stack.bootstrap_servers, learn=learner(registry.url)) as knowing:
        found = await letters(knowing, names, lambda _: True)
        sent = 0
        while chosen := [kept.letter for kept in found if not kept.redriven]:  # it asks again after a second
            both = (redrive(log, names, chosen, NOW) for log in (kafka, knowing))
            done = await asyncio.gather(*both, return_exceptions=True)
            assert {type(each) for each in done} <= {Redriven, ShutOut}
            sent += sum(each.sent for each in done if isinstance(each, Redriven))
            events = await folded()
            found = await letters(knowing, names, lambda _: True)
        assert events == len(found) == 40
        refused = sum(len(kept.places) for kept in found)
        assert refused + events == 40 + sent
