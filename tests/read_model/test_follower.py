"""A follower of changelogs: what it gathers before it writes, and what it lets go when partitions change hands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from projections.companies import COMPANIES, Company
from projections.projection import Projection
from streams.errors import DatabaseAway, Fenced
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, Record, TopicPartition, TopicSpec
from streams.read_model.sink import RECORDS_AT_ONCE, Changes, Follower
from streams.state.changelog import RowCodec, topic_of

CHANGELOG = topic_of(COMPANIES)
ROWS = RowCodec(Company)


class Kept:
    """A sink that holds its rows in memory, with the epochs of the real one."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, str]] = {}
        self.next, self.epoch = 0, 0
        self.writes: list[int] = []
        self._mine = 0
        self.set_aside = self.beats = 0

    async def take(self, changelog: str, partition: int) -> int:
        self.epoch += 1
        self._mine = self.epoch
        return self.next

    async def empty(self, projection: Projection[Any], changelog: str, partition: int) -> None:
        self.rows.clear()

    async def write(self, changes: Sequence[Changes]) -> None:
        if self._mine != self.epoch:
            raise Fenced("of sinks", "this")
        for change in changes:
            self.writes.append(len(change.rows))
            for row in change.rows:
                assert row.value is not None
                self.rows[row.text] = row.offset, ROWS.decode(b'{"at":["t",0,0],"row":%b}' % row.value.row).row.name
            self.next = change.next


def value(n: int) -> bytes:
    return ROWS.encode(Company(company="acme", name=f"n{n}"), "company-data", 0, n)


def records(start: int, stop: int, keys: int) -> list[Record]:
    return [Record(CHANGELOG, 0, n, 0, b"k%d" % (n % keys), value(n)) for n in range(start, stop)]


async def filled(count: int, keys: int) -> MemoryLog:
    log = MemoryLog()
    await log.create([TopicSpec(CHANGELOG, 1)])
    await log.append([Outgoing(CHANGELOG, r.key, r.value, partition=0) for r in records(0, count, keys)])
    return log


async def test_what_lags_is_written_once_a_row_over_many_polls():
    log, sink = await filled(70_000, 100), Kept()
    follower = Follower(sink, [COMPANIES])
    async with log.subscribe("sink", [CHANGELOG]) as member:
        while sink.next < 70_000:
            await follower.step(member, log)
    assert follower.rows == 100, "a record that was changed again before the write was written too"
    assert sink.rows == {f"k{n % 100}": (n, f"n{n}") for n in range(69_900, 70_000)}


class Scripted:
    """A member of a group that takes its partition away and gives it back, at the worst moments."""

    def __init__(self, polls: Sequence[tuple[bool, Sequence[Record]]]) -> None:
        self._polls, self._owned = list(polls), False
        self.sought: list[int] = []

    async def poll(self, timeout: float = 1.0, limit: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        self._owned, found = self._polls.pop(0) if self._polls else (self._owned, [])
        return {(CHANGELOG, 0): found} if found else {}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...

    async def committed(self) -> Mapping[TopicPartition, int]:
        return {}

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought.append(offset)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset({(CHANGELOG, 0)}) if self._owned else frozenset()

    def generation(self) -> int:
        return 0


async def test_what_was_gathered_of_a_partition_that_went_away_is_let_go():
    """It comes back at the sink's own position: nothing is written that another may have written since."""
    log, sink = await filled(20_000, 7), Kept()
    follower = Follower(sink, [COMPANIES])
    lost_and_back = Scripted(
        [(True, []), (True, records(0, 6_000, 7)), (False, records(6_000, 12_000, 7)), (True, records(3, 12_000, 7))]
    )
    for _ in range(3):
        await follower.step(lost_and_back, log)
    # Taken anew: what that poll brought began at the group's offset, not at ours.
    assert sink.writes == [] and lost_and_back.sought == [0, 0]


async def test_records_that_come_again_or_late_do_not_set_a_row_back():
    log, sink = await filled(20_000, 7), Kept()
    follower = Follower(sink, [COMPANIES])
    again = Scripted([(True, []), (True, records(0, 6_000, 7)), (True, records(0, 4_000, 7))])
    for _ in range(3):
        await follower.step(again, log)
    assert sink.next == 6_000
    assert sink.rows == {f"k{n % 7}": (n, f"n{n}") for n in range(5_993, 6_000)}


async def test_a_long_backlog_is_written_in_stretches():
    """A write that never comes would look like a follower that stands still."""
    endless = Scripted(
        [(True, []), *((True, records(n, n + 5_000, 5)) for n in range(0, RECORDS_AT_ONCE + 50_000, 5_000))]
    )
    log, sink = await filled(1, 1), Kept()
    follower = Follower(sink, [COMPANIES])
    for _ in range(3):
        await follower.step(endless, log)
    assert sink.next == RECORDS_AT_ONCE


class Busy(Kept):
    """Its write ends when the follower has polled meanwhile, and then perhaps fails."""

    def __init__(self) -> None:
        super().__init__()
        self.polled, self.fails = asyncio.Event(), False

    async def write(self, changes: Sequence[Changes]) -> None:
        self.polled.clear()
        async with asyncio.timeout(10):
            await self.polled.wait()
        if self.fails:
            raise DatabaseAway("for a test")
        await super().write(changes)


class Told(Scripted):
    """Says when it was polled."""

    def __init__(self, polls: Sequence[tuple[bool, Sequence[Record]]], sink: Busy) -> None:
        super().__init__(polls)
        self._sink = sink

    async def poll(self, timeout: float = 1.0, limit: int | None = None) -> Mapping[TopicPartition, Sequence[Record]]:
        await asyncio.sleep(0.01)
        self._sink.polled.set()
        return await super().poll(timeout, limit)


async def test_it_gathers_while_it_writes():
    log, sink = await filled(1, 1), Busy()
    follower = Follower(sink, [COMPANIES])
    member = Told([(True, []), *((True, records(n, n + 10, 5)) for n in range(0, 40, 10))], sink)
    for _ in range(6):
        await follower.step(member, log)
    assert sink.next == 40 and len(sink.writes) == 4


async def test_what_was_gathered_while_a_write_failed_is_read_again():
    """Else the next write would begin above what the failed one has not brought in."""
    log, sink = await filled(1, 1), Busy()
    follower = Follower(sink, [COMPANIES])
    member = Told([(True, []), (True, records(0, 10, 5)), (True, records(10, 20, 5))], sink)
    await follower.step(member, log)
    await follower.step(member, log)
    sink.fails = True
    with pytest.raises(DatabaseAway):
        await follower.step(member, log)
    sink.fails = False
    for _ in range(3):
        await follower.step(member, log)
    assert sink.writes == [] and member.sought == [0, 0]
