"""A rebalance that begins while the last one's rows are restored: nothing flows before its own rows are here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from faust.tables.recovery import RebalanceAgain

from projections.datasets import DATASETS
from schemas.topics import TopicNames
from streams.log.kafka.access import KafkaAccess
from streams.log.memory import MemoryLog
from streams.owner.app import Worker, create_app
from streams.owner.faust_tables import BatchRecovery


async def test_what_was_given_out_before_resumes_nothing_once_another_rebalance_has_begun(tmp_path: Path) -> None:
    worker = Worker(KafkaAccess("nowhere:9092"), "t-rillfold", "w", tmp_path, TopicNames("t-"))
    app = create_app(worker, MemoryLog(), [DATASETS])
    recovery = app.tables.recovery
    assert isinstance(recovery, BatchRecovery)

    async def step(begins: bool = False) -> None:
        await asyncio.sleep(0)
        app.rebalancing_count += begins

    async def given_out(generation: int) -> None:
        """As Faust does it: its own notice comes last."""
        recovery.given(generation)
        recovery._generation_id = generation

    app.rebalancing_count = 1
    await given_out(4)
    await recovery._wait(step())
    with pytest.raises(RebalanceAgain):
        await recovery._wait(step(begins=True))  # its partitions are taken away, and none is given yet
    recovery.given(5)
    with pytest.raises(RebalanceAgain):
        await recovery._wait(step())  # it is of generation 4 still
    recovery._generation_id = 5
    await recovery._wait(step())
    app.rebalancing_count = 3  # a member that comes back under its name hears of no other generation
    await given_out(5)
    await recovery._wait(step())
