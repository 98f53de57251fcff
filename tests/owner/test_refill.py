"""Stores are filled from their changelogs up to the worker's own claims, or left at a shorter prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from projections.companies import COMPANIES, Company
from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.fold.commit import Ports
from streams.fold.failpoint import FailPoint
from streams.fold.folding import Folding
from streams.fold.shard import Shard
from streams.log.kafka.access import KafkaAccess
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, TopicSpec
from streams.owner.fence import FencedChangelogs
from streams.owner.refill import refill
from streams.owner.shards import ShardOwner
from streams.state.changelog import RowCodec, topic_of
from streams.state.store import MemoryStore, RocksStore
from tests.owner.test_claimed_anew import Gate, Unfenced
from tests.support.stores import MemoryStores

CODEC = RowCodec(Company)


def row(partition: int, n: int) -> tuple[bytes, bytes]:
    return f"company-{n}".encode(), CODEC.encode(Company(company=f"company-{n}"), "company-data", partition, n)


@pytest.fixture
async def filled(kafka: KafkaLog, stack: Endpoints, names: TopicNames) -> tuple[str, Mapping[int, int]]:
    """A changelog of two partitions with 300 rows each, some of them twice and some removed; the claims at its ends."""
    changelog = topic_of(COMPANIES, names.prefix)
    await kafka.create([TopicSpec(changelog, 2)])
    fence = FencedChangelogs("us", KafkaAccess(stack.bootstrap_servers))
    claims = {}
    for owner in range(2):
        claims = {p: offset for (_, p), offset in (await fence.claim({0: [changelog], 1: [changelog]})).items()}
        if owner == 0:
            for partition in range(2):
                for start in range(0, 300, 60):
                    await fence.append(changelog, partition, [row(partition, n) for n in range(start, start + 60)])
                await fence.append(changelog, partition, [row(partition, 7), (b"company-8", None)])
    await fence.stop()
    return changelog, claims


async def test_rows_and_removals_arrive_as_they_were_written(
    filled: tuple[str, Mapping[int, int]], stack: Endpoints, tmp_path: Path
):
    changelog, claims = filled
    shards = {Shard(COMPANIES, changelog, p, RocksStore(tmp_path / str(p))): claim for p, claim in claims.items()}
    await refill(shards, access=KafkaAccess(stack.bootstrap_servers))
    for shard, claim in shards.items():
        shard.restored()
        assert shard.store.position() == claim
        assert sorted(key for key, _ in shard.rows()) == sorted(f"company-{n}" for n in range(300) if n != 8)
        shard.store.close()


async def test_it_goes_on_where_a_store_stands(filled: tuple[str, Mapping[int, int]], stack: Endpoints):
    """In the middle of a record batch: what the store has is not handed to it again."""
    changelog, claims = filled
    store, taken = MemoryStore(), []
    store.write([row(0, n) for n in range(100)], 100)  # behind the first claim, which is record 0
    write = store.write
    store.write = lambda pairs, position: write(taken.extend(pairs := list(pairs)) or pairs, position)  # type: ignore[method-assign]
    await refill({Shard(COMPANIES, changelog, 0, store): claims[0]}, access=KafkaAccess(stack.bootstrap_servers))
    assert [key for key, _ in taken[:2]] == [b"company-100", b"company-101"]
    assert store.position() == claims[0]


async def test_a_copy_that_lacks_what_is_deleted_is_not_filled_beyond_it(caplog: pytest.LogCaptureFixture):
    """A takeover would find it whole."""
    gate, log, changelog = Gate(), MemoryLog(), TP(topic_of(COMPANIES), 0)
    await log.create([TopicSpec(changelog.topic, 1)])
    await log.append([Outgoing(changelog.topic, *row(0, n), partition=0) for n in range(20)])
    folding = Folding([COMPANIES], TopicNames(), Ports(gate.publish, gate.append, FailPoint()))
    fence: Any = Unfenced()
    owner = ShardOwner(folding, fence, MemoryStores(), log, "group", refill_nothing)
    await owner.assigned([changelog])
    owner.restore(changelog, 0, [row(0, n) for n in range(5)], 4)
    log.truncate(changelog.topic, 0, 5)
    assert await owner.follows(changelog) == 5, "it lacks nothing"
    log.truncate(changelog.topic, 0, 7)
    assert await owner.follows(changelog) is None
    assert owner.persisted(changelog) == 4
    assert "No copy is kept" in caplog.text and "begins at 7, and our copy of it needs 5" in caplog.text
    log.delete(changelog.topic)
    await log.create([TopicSpec(changelog.topic, 1)])
    assert await owner.follows(changelog) == 0, "it is the copy of another changelog"
    assert owner.persisted(changelog) is None


async def refill_nothing(_: object) -> None:
    return None


async def test_nothing_to_read_asks_nobody():
    await refill({}, KafkaAccess("nowhere:1"))


@pytest.mark.parametrize("comes", ["assigned", "claim"])
async def test_it_is_left_off_when_another_recovery_begins(comes: str):
    reads, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> None:
        reads.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    gate, changelog, fence = Gate(), TP(topic_of(COMPANIES), 0), unfenced()
    folding = Folding([COMPANIES], TopicNames(), Ports(gate.publish, gate.append, FailPoint()))
    keeper = ShardOwner(folding, fence, MemoryStores(), MemoryLog(), "group", slow)
    await keeper.assigned([changelog])
    await keeper.claim([changelog])
    filling = asyncio.create_task(keeper.refill([changelog]))
    await reads.wait()
    await getattr(keeper, comes)([changelog])
    assert ended.is_set()
    assert await filling is False


async def test_what_fails_while_filling_is_not_taken_for_filled():
    async def broken(_: object) -> None:
        raise OSError("the disk is full")

    gate, changelog, fence = Gate(), TP(topic_of(COMPANIES), 0), unfenced()
    folding = Folding([COMPANIES], TopicNames(), Ports(gate.publish, gate.append, FailPoint()))
    keeper = ShardOwner(folding, fence, MemoryStores(), MemoryLog(), "group", broken)
    await keeper.assigned([changelog])
    await keeper.claim([changelog])
    with pytest.raises(OSError, match="disk is full"):
        await keeper.refill([changelog])


def unfenced() -> Any:
    return Unfenced()
