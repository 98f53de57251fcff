"""An upgrade of Faust or aiokafka that moves a line we lean on fails here, and says which."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from functools import reduce
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import ServiceTask

from streams.fold.batch import Batch
from streams.owner.faust_seam import HELD_BYTES, BatchConsumer, BatchThread, Fetched
from streams.owner.faust_tables import RowTable
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


HERE = TP("company-data", 3)


class Assigned:
    """What the seam looks at of an aiokafka consumer: its own bookkeeping of what the group has given out."""

    def __init__(self) -> None:
        self._subscription = SubscriptionState()
        self._subscription.subscribe({HERE.topic})

    def given_out(self, position: int) -> None:
        """A rebalance is over, and the group knew a place. It may be far behind the markers."""
        self._subscription.assign_from_subscribed({HERE})
        self.seek(HERE, position)

    def seek(self, tp: TP, offset: int) -> None:
        self._subscription.seek(tp, offset)

    def fetched(self, thread: BatchThread, next_: int) -> int | None:
        """The thread's word of where a fetch began that has brought a partition so far."""
        self.seek(HERE, next_)
        return thread._located(self, HERE, [], 0).start


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> BatchThread:
    async def seek_wait(_: object, consumer: Assigned, partitions: dict[TP, int]) -> None:
        for tp, offset in partitions.items():
            consumer.seek(tp, offset)

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_seek_wait", seek_wait)
    made = BatchThread.__new__(BatchThread)
    made.sought = {}
    return made


async def test_what_is_fetched_before_the_seek_to_the_marker_begins_nowhere(thread: BatchThread):
    """Sources flow a moment before they are sought: what is read then must not count as read."""
    consumer = Assigned()
    consumer.given_out(40_000)
    assert consumer.fetched(thread, 43_900) is None
    assert consumer.fetched(thread, 50_000) is None
    await thread._seek_wait(consumer, {HERE: 7})
    assert consumer.fetched(thread, 90) == 7
    assert consumer.fetched(thread, 100) == 90


async def test_a_seek_that_comes_while_the_group_gives_out_anew_says_nothing_of_what_comes_then(thread: Any):
    """Else a fetch from where the group was would count as one from the marker: what lies between is folded twice."""
    consumer = Assigned()
    consumer.given_out(100)
    thread._consumer = consumer
    thread.sought.clear()  # taken away, and others are waited for
    await thread._seek_wait(consumer, {HERE: 380})
    assert (consumer.fetched(thread, 390), thread.stands_at(HERE)) == (380, 390)
    consumer.given_out(100)
    assert thread.stands_at(HERE) is None
    assert consumer.fetched(thread, 500) is None
    await thread._seek_wait(consumer, {HERE: 390})
    assert consumer.fetched(thread, 600) == 390


async def taken_away(*_: object) -> None:
    raise IllegalStateError("No current assignment for partition")


async def test_nothing_counts_as_read_from_where_a_seek_did_not_get(
    thread: BatchThread, monkeypatch: pytest.MonkeyPatch
):
    """Else a later fetch from another place would claim to begin there, and what lies between would be skipped."""
    consumer = Assigned()
    consumer.given_out(1)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_seek_wait", taken_away)
    with pytest.raises(IllegalStateError):
        await thread._seek_wait(consumer, {HERE: 5})
    assert consumer.fetched(thread, 9) is None


async def test_a_copy_that_misses_something_goes_back_for_it():
    """A rebalance may empty Faust's queue and still let through what was about to be put there."""
    sought, tp = list[object](), TP("changelog", 3)

    async def seek_wait(partitions: dict[TP, int]) -> None:
        sought.append(partitions)

    table: Any = RowTable.__new__(RowTable)
    row: Any = SimpleNamespace(offset=14, key=b"acme", value=b"row")
    recovery = SimpleNamespace(standby_tps={tp}, standby_offsets={tp: 14})
    owner = SimpleNamespace(restore=lambda tp, start, pairs, last: 10 if start > 10 else None)
    consumer = SimpleNamespace(seek_wait=seek_wait)
    table.app = SimpleNamespace(shard_owner=owner, tables=SimpleNamespace(recovery=recovery), consumer=consumer)
    table.add_future = asyncio.ensure_future
    for start, expected in ((10, []), (12, [{tp: 10}])):
        event = SimpleNamespace(message=SimpleNamespace(tp=tp), value=Batch(*tp, start, 15, [row]))
        table.apply_changelog_batch([event])
        await asyncio.sleep(0)
        assert sought == expected
    assert recovery.standby_offsets == {tp: 9}, "else what it goes back for would count as seen"


async def test_a_fetch_goes_on_when_its_partitions_are_taken_away_before_the_seek(monkeypatch: pytest.MonkeyPatch):
    async def fetched(*_: object) -> tuple[dict[object, object], None]:
        return {}, None

    consumer = object.__new__(BatchConsumer)
    consumer._full, consumer._held, consumer.flow_active, consumer._room = set(), 0, False, asyncio.Event()
    consumer._room.set()
    monkeypatch.setattr(BatchConsumer, "_wait_next_records", fetched)
    monkeypatch.setattr(BatchConsumer, "perform_seek", taken_away)
    monkeypatch.setattr(BatchConsumer, "should_stop", False)
    monkeypatch.setattr(BatchConsumer, "app", SimpleNamespace(consumer_generation_id=1), raising=False)
    assert [message async for message in consumer.getmany(1.0)] == []


async def test_nothing_is_fetched_while_much_waits_for_the_fold(monkeypatch: pytest.MonkeyPatch):
    """Partitions are many: a bound for one fetch is none for a worker."""
    source, rows = TP("t", 0), TP("changelog", 0)
    fetches = 0

    async def fetched(*_: object) -> tuple[dict[object, object], None]:
        nonlocal fetches
        fetches += 1
        record = SimpleNamespace(offset=7, timestamp=1, timestamp_type=0)
        return {tp: Fetched(7, 8, [record], HELD_BYTES // 2) for tp in (source, rows)}, None

    async def soon(_self: object, event: Any, timeout: float | None = None) -> None:
        event.close()

    async def nothing(*_: object, **__: object) -> None:
        """What Faust does there."""

    monitor = SimpleNamespace(track_tp_end_offset=lambda *_: None)
    app = SimpleNamespace(consumer_generation_id=1, monitor=monitor)
    for name, instead in {
        "_wait_next_records": fetched,
        "wait": soon,
        "should_stop": False,
        "app": app,
        "highwater": lambda *_: 8,
        "_is_changelog_tp": lambda _, tp: tp == rows,
    }.items():
        monkeypatch.setattr(BatchConsumer, name, instead, raising=False)
    monkeypatch.setattr(driver.Consumer, "on_partitions_assigned", nothing)
    consumer = object.__new__(BatchConsumer)
    consumer._full, consumer._held, consumer.flow_active, consumer._room = set(), 0, True, asyncio.Event()
    consumer._room.set()

    async def get() -> list[Any]:
        return [message.value for tp, message in [each async for each in consumer.getmany(1.0)] if tp == source]

    first, second = [*await get(), *await get()]
    assert await get() == []
    assert (fetches, consumer._room.is_set()) == (2, False)
    consumer.let_go(first)
    assert (consumer._held, consumer._room.is_set()) == (HELD_BYTES // 2, True)
    assert len(await get()) == 1
    assert await get() == []
    await consumer.on_partitions_assigned({source})  # nobody acknowledges what was dropped
    assert len(await get()) == 1
    consumer.let_go(second)
    assert consumer._held == 0


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
