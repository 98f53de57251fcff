"""An upgrade of Faust or aiokafka that moves a line we lean on fails here, and says which."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from functools import reduce
from importlib import import_module
from types import SimpleNamespace

import faust
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import ServiceTask

from streams.owner.faust_seam import BatchConsumer, BatchThread
from tests.support.relied_on import BY_FETCHED, BY_THE_SEAM, FAUST_VERSION


def test_the_installed_faust_is_the_one_that_was_read():
    assert faust.__version__ == FAUST_VERSION, (
        "read streams/owner/faust_seam.py against the new version, then raise it in tests/support/relied_on.py"
    )


@pytest.mark.parametrize("name", ALL := {**BY_THE_SEAM, **BY_FETCHED})
def test_the_upstream_lines_that_the_seam_relies_on_are_there(name: str):
    module, _, path = name.partition(":")
    found = reduce(getattr, path.split("."), import_module(module))
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, ServiceTask):
        found = found.fun
    source = inspect.getsource(found)
    for line in ALL[name]:
        assert line in source, f"{name} no longer says {line!r}"


class FakeConsumer:
    """Says where a partition is read to, as aiokafka does after a fetch."""

    def __init__(self, position: int) -> None:
        self._subscription = SimpleNamespace(
            subscription=SimpleNamespace(
                assignment=SimpleNamespace(state_value=lambda _: SimpleNamespace(position=position))
            )
        )


def test_what_is_fetched_before_the_seek_to_the_marker_begins_nowhere():
    """Sources flow a moment before they are sought: what is read then must not count as read."""
    thread = BatchThread.__new__(BatchThread)
    thread.read_to = {}
    source = ("company-data", 3)
    assert thread._located(FakeConsumer(43_900), source, []).start is None
    assert thread._located(FakeConsumer(50_000), source, []).start is None
    thread.read_to[source] = 7  # the seek
    assert thread._located(FakeConsumer(90), source, []).start == 7
    assert thread._located(FakeConsumer(100), source, []).start == 90


async def taken_away(*_: object) -> None:
    raise IllegalStateError("No current assignment for partition")


async def test_nothing_counts_as_read_from_where_a_seek_did_not_get(monkeypatch: pytest.MonkeyPatch):
    """Else a later fetch from another place would claim to begin there, and what lies between would be skipped."""
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_seek_wait", taken_away)
    thread, there = object.__new__(BatchThread), TopicPartition("t", 0)
    thread.read_to = {}
    with pytest.raises(IllegalStateError):
        await thread._seek_wait(None, {there: 5})  # type: ignore[dict-item]
    assert thread.read_to == {}


async def test_a_fetch_goes_on_when_its_partitions_are_taken_away_before_the_seek(monkeypatch: pytest.MonkeyPatch):
    async def fetched(*_: object) -> tuple[dict[object, object], None]:
        return {}, None

    consumer = object.__new__(BatchConsumer)
    consumer._full, consumer.flow_active = set(), False
    monkeypatch.setattr(BatchConsumer, "_wait_next_records", fetched)
    monkeypatch.setattr(BatchConsumer, "perform_seek", taken_away)
    monkeypatch.setattr(BatchConsumer, "should_stop", False)
    monkeypatch.setattr(BatchConsumer, "app", SimpleNamespace(consumer_generation_id=1), raising=False)
    assert [message async for message in consumer.getmany(1.0)] == []


async def test_a_fetch_begins_when_its_partitions_are_resumed(monkeypatch: pytest.MonkeyPatch):
    """Faust looks again after a second: so long a worker would stand still after each rebalance."""

    async def fetched(*_: object) -> tuple[dict[object, object], None]:
        return {}, None

    async def forever(_self: object, event: Awaitable[object], timeout: float | None = None) -> None:
        await event

    consumer = object.__new__(BatchConsumer)
    consumer.flow_active, consumer._resumed = True, asyncio.Event()
    consumer._active_partitions, consumer._paused_partitions = set(), {TP("t", 0)}
    monkeypatch.setattr(driver.Consumer, "_wait_next_records", fetched)
    monkeypatch.setattr(BatchConsumer, "wait", forever)
    waiting = asyncio.create_task(consumer._wait_next_records(1.0))
    for _ in range(3):
        await asyncio.sleep(0)
        assert not waiting.done()
    consumer.resume_partitions([TP("t", 0)])
    assert await asyncio.wait_for(waiting, 10) == ({}, None)
    assert await consumer._wait_next_records(1.0) == ({}, None), "what flows does not wait"
