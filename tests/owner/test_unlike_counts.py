"""Topics of eight partitions beside topics of four, in one group: a number's rows may be two workers'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from faust.types import TP

from processors.saga import ACTING_JOBS
from projections.companies import COMPANIES
from schemas.envelope import Event
from schemas.jobs import JobRequested
from schemas.topics import TOPICS, TopicNames
from streams.errors import Misconfigured, SourceGrown
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec, records_in
from streams.owner.shards import ShardOwner
from streams.state.changelog import CLAIM, topic_of
from streams.state.prepare import prepare
from tests.owner.test_claimed_anew import Gate, Unfenced, nothing_to_read
from tests.support.folding import Agree, Make
from tests.support.stores import MemoryStores

BOTH = (COMPANIES, ACTING_JOBS)
ONLY = [option for each in BOTH for option in ("--only", each.name)]


def jobs(numbers: Sequence[int]) -> list[Event]:
    about = [({"id": f"r{n}", "company": f"c{n % 7}", "time": 1, "correlation": f"r{n}"}, f"j{n}") for n in numbers]
    return [JobRequested(**own, job=job, task="Refund order 7") for own, job in about]


@pytest.fixture
async def topics(kafka: KafkaLog, names: TopicNames) -> None:
    counts = {"company-data": 8}
    await kafka.create([TopicSpec(names.wire(each.name), counts.get(each.name, 4)) for each in TOPICS])


async def test_one_projection_over_topics_of_eight_and_four_is_refused_by_name() -> None:
    log, names = MemoryLog(), TopicNames()
    counts = {"inference-result": 8}
    await log.create([TopicSpec(each.name, counts.get(each.name, 4)) for each in TOPICS])
    with pytest.raises(Misconfigured, match=r"'inference-result': 8.*must have the same number of partitions"):
        await prepare(log, [ACTING_JOBS], names)


@pytest.mark.parametrize("known", [4, 6])
async def test_a_topic_that_grows_while_a_worker_runs_ends_it_by_name_when_the_new_partition_is_given_out(known: int):
    """The log may have heard of the new ones, or may know the topic as it was."""
    log, folding = MemoryLog(), Folding([COMPANIES], TopicNames(), Ports(Gate().publish, Gate().append, FailPoint()))
    await log.create([TopicSpec("company-data", known), TopicSpec(topic_of(COMPANIES), 4)])
    fence: Any = Unfenced()
    owner = ShardOwner(folding, fence, MemoryStores(), log, "group", nothing_to_read)
    assert await owner.begins([TP("company-data", n) for n in range(4)]) == {}, "no rows are here yet"
    with pytest.raises(SourceGrown, match="company-data has more than 4 partitions"):
        await owner.begins([TP("company-data", n) for n in range(5)])


async def owners(kafka: KafkaLog, names: TopicNames, changelog: str) -> list[str]:
    """Of each partition, who has claimed it last."""
    last = dict[int, str]()
    for n, end in (await kafka.ends(changelog)).items():
        async for record in records_in(kafka, changelog, n, 0, end):
            if record.key == CLAIM and record.value is not None:
                last[n] = msgspec.json.decode(record.value)["owner"]
    return [last[n] for n in sorted(last)]


async def test_eight_partitions_against_four_on_two_workers_give_exact_rows_through_rebalances_and_a_kill(
    workers: Any, kafka: KafkaLog, names: TopicNames, topics: None, some_events: Make, agree: Agree
) -> None:
    wide, narrow = (topic_of(each, names.prefix) for each in BOTH)
    sent = 0

    async def send() -> None:
        nonlocal sent
        events = [*some_events(300, sent), *jobs(range(sent, sent + 40))]
        await kafka.append([to_outgoing(event, names) for event in events])
        sent += 40

    async def shared() -> tuple[list[str], list[str]]:
        async with asyncio.timeout(90):  # the broker tells nobody
            while True:
                found = await owners(kafka, names, wide), await owners(kafka, names, narrow)
                if all(set(each) == {"a", "b"} for each in found):
                    return found
                await send()
                await asyncio.sleep(0.5)

    first, second = workers("a"), workers("b")
    await send()
    first.start(*ONLY).until_ready()
    second.start(*ONLY)
    of_eight, of_four = await shared()
    assert (len(of_eight), len(of_four)) == (8, 4)
    assert of_eight[:4] != of_four, "one number's rows are two workers'"
    first.kill()
    await send()
    first.start(*ONLY)
    await send()
    await agree(BOTH)
