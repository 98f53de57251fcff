"""The group gives its partitions out anew while a worker is at work on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from faust.types import TP

from projections.companies import COMPANIES
from projections.datasets import DATASETS
from projections.jobs import JOBS
from projections.tool_calls import TOOL_CALLS
from schemas.company import CompanyRegistered
from schemas.envelope import Event
from schemas.tools import ToolReturned
from schemas.topics import TopicNames
from streams.errors import OwnershipLost
from streams.fold.batch import Batch
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.log.kafka import admin
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Extent, Outgoing, Record, TopicSpec
from streams.owner.shards import ShardOwner
from streams.state.changelog import Marker, Rows, claim_record, marker_record, topic_of
from streams.state.store import MemoryStore
from tests.support.stores import MemoryStores

NAMES = TopicNames()
CHANGELOG = topic_of(COMPANIES)


class Gate:
    """Appends wait here until they may go on, and are counted when they do."""

    def __init__(self) -> None:
        self.open, self.waiting, self.appended = asyncio.Event(), asyncio.Event(), 0

    async def publish(self, _: Sequence[Event]) -> None:
        self.waiting.set()
        await self.open.wait()

    async def append(self, topic: str, partition: int, rows: Rows) -> int:
        self.waiting.set()
        await self.open.wait()
        self.appended += 1
        return self.appended


def registered(n: int) -> Record:
    fields = {"id": f"i{n}", "company": "acme", "time": n, "correlation": f"i{n}"}
    out = to_outgoing(CompanyRegistered(**fields, name=f"Acme {n}"), NAMES)
    return Record(out.topic, 0, n, 1000 + n, out.key, out.value)


async def test_a_batch_that_comes_before_the_rows_are_restored_is_not_folded():
    """The disk has rows up to 36, the changelog up to 90: what is fetched meanwhile would be folded into old rows."""
    gate, store = Gate(), MemoryStore()
    gate.open.set()
    store.write([marker_record(Marker("company-data", 0, 36))], 7)
    folding = Folding([COMPANIES], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    shard = folding.open(COMPANIES, 0, store)
    batch = Batch("company-data", 0, 30, 40, [registered(n) for n in range(30, 40)])
    await folding.step(batch)
    assert gate.appended == 0
    assert folding.begin("company-data", 0, Extent(0, 90)) is None
    # It is acknowledged to Faust, but the group must not commit it: a rebuild sends nothing below the commit again.
    assert folding.folded("company-data", 0) is None
    shard.restored()
    assert folding.folded("company-data", 0) == 36
    await folding.step(batch)
    assert gate.appended == 1
    assert folding.folded("company-data", 0) == 40


async def test_a_source_flows_when_all_that_it_feeds_is_restored():
    gate = Gate()
    gate.open.set()
    folding = Folding([COMPANIES, DATASETS], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    first, second = (folding.open(projection, 0, MemoryStore()) for projection in (COMPANIES, DATASETS))
    first.restored()
    assert folding.begin("company-data", 0, Extent(7, 90)) is None
    second.restored()
    assert folding.begin("company-data", 0, Extent(7, 90)) == 7
    await folding.step(Batch("company-data", 0, 7, 8, [registered(7)]))
    assert folding.folded("company-data", 0) == 8


async def test_the_group_commits_nothing_of_a_source_that_feeds_rows_of_which_we_have_only_some():
    """The leader is of another release, and knows no changelog of the others: nothing that follows was sent for them,
    and whoever takes them over would believe the commit. The kill script's seed 410 lost a job's effect so."""
    gate = Gate()
    gate.open.set()
    folding = Folding([COMPANIES, DATASETS], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    folding.open(COMPANIES, 0, MemoryStore()).restored()
    folding.begin("company-data", 0, Extent(0, 90))
    await folding.step(Batch("company-data", 0, 0, 2, [registered(0), registered(1)]))
    assert gate.appended == 1 and folding.folded("company-data", 0) is None
    folding.open(DATASETS, 0, MemoryStore()).restored()
    folding.begin("company-data", 0, Extent(0, 90))
    assert folding.folded("company-data", 0) == 0


async def test_a_batch_under_way_when_its_partition_is_claimed_again_is_not_committed():
    """By its own worker: the fence between workers would let it through."""
    gate = Gate()
    folding = Folding([COMPANIES], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    folding.open(COMPANIES, 0, MemoryStore()).restored()
    folding.begin("company-data", 0, Extent(0, 90))
    poison = Record("company-data", 0, 0, 1000, None, b"poison")
    under_way = asyncio.create_task(folding.step(Batch("company-data", 0, 0, 2, [poison, registered(1)])))
    await gate.waiting.wait()
    folding.claim(CHANGELOG, 0)
    shard = folding.shard(CHANGELOG, 0)
    assert shard is not None
    shard.restored()
    gate.open.set()
    with pytest.raises(OwnershipLost):
        await under_way
    assert gate.appended == 0
    assert list(shard.rows()) == []


class Unfenced:
    """A fence that lets everybody through: what is shown here must not need it. Its claims stand at offset 9."""

    async def claim(self, topics: Mapping[int, Sequence[str]]) -> dict[tuple[str, int], int]:
        return {(topic, partition): 9 for partition, names in topics.items() for topic in names}

    async def release(self, _: object) -> None:
        return None

    async def stop(self) -> None:
        return None


async def nothing_to_read(_: object) -> None:
    return None


async def catching_up(gate: Gate, changelog: TP) -> tuple[ShardOwner, asyncio.Task[None]]:
    """It waits at the gate, with one record in hand."""
    log = MemoryLog()
    await admin.create(log, NAMES)
    await log.create([TopicSpec(changelog.topic, 4)])
    fields = {"company": "acme", "time": 1, "correlation": "c", "call": "c", "job": "j", "tool": "t", "ok": True}
    await log.append([to_outgoing(ToolReturned(id="i", **fields), NAMES)._replace(partition=0)])
    folding = Folding([TOOL_CALLS], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    owner = ShardOwner(folding, fence, MemoryStores(), log, "group", nothing_to_read)
    await owner.assigned([changelog])
    await owner.claim([changelog])
    owner.restore(changelog, 0, [claim_record("us")], 9)
    under_way = asyncio.create_task(owner.restored([changelog]))
    await gate.waiting.wait()
    return owner, under_way


async def test_a_catching_up_ends_before_its_stores_are_closed():
    gate = Gate()
    owner, under_way = await catching_up(gate, TP(topic_of(TOOL_CALLS), 0))
    await owner.stop()
    gate.open.set()
    await asyncio.wait([under_way])
    assert under_way.cancelled()
    assert gate.appended == 0


async def test_a_catching_up_ends_when_another_recovery_begins():
    gate, changelog = Gate(), TP(topic_of(TOOL_CALLS), 0)
    owner, first = await catching_up(gate, changelog)
    await owner.assigned([changelog])
    await owner.claim([changelog])
    gate.open.set()
    await asyncio.wait([first])
    assert first.cancelled()
    assert gate.appended == 0
    await owner.restored([changelog])
    assert gate.appended > 0


async def test_rows_count_as_restored_when_they_reach_our_own_claim():
    """A recovery that was overtaken ends as well, and says so in the middle of the next one."""
    gate, changelog = Gate(), TP(CHANGELOG, 0)
    folding = Folding([COMPANIES], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    log = MemoryLog()
    await log.create([TopicSpec("company-data", 1)])
    await log.append([Outgoing("company-data", b"k", b"%d" % n, partition=0) for n in range(90)])
    owner = ShardOwner(folding, fence, MemoryStores(), log, "group", nothing_to_read)
    await owner.assigned([changelog])
    await owner.restored([changelog])
    assert folding.begin("company-data", 0, Extent(0, 90)) is None
    await owner.claim([changelog])
    owner.restore(changelog, 0, [marker_record(Marker("company-data", 0, 36))], 5)
    await owner.restored([changelog])
    assert folding.begin("company-data", 0, Extent(0, 90)) is None
    owner.restore(changelog, 0, [marker_record(Marker("company-data", 0, 90)), claim_record("us")], 9)
    await owner.restored([changelog])
    assert folding.begin("company-data", 0, Extent(0, 90)) == 90


async def test_rows_that_another_worker_folds_from_now_on_wait_for_nobody(caplog: pytest.LogCaptureFixture):
    """Their copy stays with us: a worker that joins is no deploy that is under way."""
    gate = Gate()
    folding = Folding([COMPANIES], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    owner = ShardOwner(folding, fence, MemoryStores(), MemoryLog(), "group", nothing_to_read)
    changelogs, sources = ([TP(topic, p) for p in range(2)] for topic in (CHANGELOG, "company-data"))
    for ours in (changelogs, changelogs[:1]):
        await owner.assigned(changelogs)
        await owner.claim(ours)
        for each in ours:
            owner.restore(each, 0, [claim_record("us")], 9)
        await owner.restored(ours)
    owner.say_what_waits(sources[:1], sources)
    assert "not folded until" not in caplog.text
    owner.say_what_waits([], sources)
    assert "companies v1 for company-data/0: not folded until" in caplog.text


async def test_what_an_earlier_recovery_still_hands_on_is_left_alone():
    """Faust empties its buffers when the next recovery begins: the partition may be gone, or be further by then."""
    gate, changelog = Gate(), TP(CHANGELOG, 0)
    folding = Folding([COMPANIES], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    owner = ShardOwner(folding, fence, MemoryStores(), MemoryLog(), "group", nothing_to_read)
    await owner.assigned([changelog])
    owner.restore(changelog, 0, [(b"acme", b"new")], 9)
    owner.restore(changelog, 0, [(b"acme", b"old")], 5)
    shard = folding.shard(CHANGELOG, 0)
    assert shard is not None
    assert (shard.store.get([b"acme"]), shard.store.position()) == ([b"new"], 9)
    assert owner.restore(changelog, 12, [(b"acme", b"behind a gap")], 14) == 10, "what stands between never came"
    assert (shard.store.get([b"acme"]), shard.store.position()) == ([b"new"], 9)
    assert owner.restore(changelog, 8, [(b"acme", b"newer")], 14) is None
    assert (shard.store.get([b"acme"]), shard.store.position()) == ([b"newer"], 14)
    await owner.assigned([])
    owner.restore(changelog, 0, [(b"acme", b"late")], 11)


async def test_a_topic_that_is_deleted_while_it_is_given_out_stands_still_by_name():
    """The group has not heard of it yet: the others go on."""
    gate, changelog = Gate(), TP(topic_of(JOBS), 0)
    folding = Folding([JOBS], NAMES, Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    log = MemoryLog()
    sources = [TP(topic, 0) for topic in folding.sources_of(JOBS)]
    gone, *there = sources
    await log.create([TopicSpec(source.topic, 1) for source in there])
    owner = ShardOwner(folding, fence, MemoryStores(), log, "group", nothing_to_read)
    await owner.assigned([changelog])
    await owner.claim([changelog])
    owner.restore(changelog, 0, [claim_record("us")], 9)
    await owner.restored([changelog])
    assert set(await owner.begins(sources)) == set(there)
    assert f"{gone.topic} was deleted while group group was at work" in str(folding.lost[gone])
