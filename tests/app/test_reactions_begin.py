"""Where a reaction begins, and goes on: what its group has committed decides it, and who finds nothing says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rillfold.testing.driver import Driver
from schemas.company import RecordIngested
from schemas.memory import MemoryNoted
from schemas.topics import TopicNames
from streams.log.kafka.admin import wanted
from streams.log.memory import MemoryAlone, MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import Alone, Outgoing, Position, Reached
from streams.react.reactor import Reactor
from tests.app.test_reactions import BEGIN, NOTE, events_of, said, said_by

NAMES = TopicNames()


async def emitted(log: MemoryLog, kind: str, app: Any = ()) -> Sequence[str]:
    """By all that ever ran on this log, after one event more."""
    async with Driver(log, app) as d:
        await d.send(said(kind))
        await d.settle()
        events = await d.events("company-data")
    return sorted(each.memory for each in events if isinstance(each, MemoryNoted))


@pytest.mark.parametrize(
    ("begin", "after", "told"),
    [
        ("now", ["one", "two"], "events before are not reacted to"),
        (
            "first",
            ["away", "one", "one", "two"],
            "all events from there on are reacted to, also those that were before",
        ),
    ],
)
async def test_who_begins_with_nothing_committed_says_so_by_name(
    release: Any, caplog: pytest.LogCaptureFixture, begin: str, after: Sequence[str], told: str
) -> None:
    """Kafka forgets a group whose members are gone for `offsets.retention.minutes`: it begins as one that never was."""
    log, app = MemoryLog(), release(BEGIN.format(begin=begin, version=1))
    assert await emitted(log, "one", app) == ["one"]
    assert "shop/note.v1: group" not in caplog.text, "nothing ever stood in its topic"
    await emitted(log, "away")
    (where,) = [n for n, end in (await log.ends("company-data")).items() if end]
    first, end = (await log.starts("company-data"))[where], (await log.ends("company-data"))[where]
    del log._groups["rillfold-react-shop-note-v1"]
    assert await emitted(log, "two", app) == after
    (line,) = [each for each in caplog.messages if each.startswith("shop/note.v1: group rillfold-react-shop-note-v1")]
    assert "has committed nothing on company-data: " in line and "offsets.retention.minutes" in line
    assert f"company-data/{where}/{end if begin == 'now' else first}" in line and line.endswith(told)
    await emitted(log, "three", app)
    assert caplog.text.count(line) == 1, "it has committed by then"


class Died(Exception):
    """The old owner, within its commit."""


class FakeAppenderThatDies:
    """Its transaction is with the broker, which has not ended it yet."""

    def __init__(self, alone: Alone, log: FakeLogWithBegun) -> None:
        self._alone, self._log = alone, log

    async def append(self, records: Sequence[Outgoing], reached: Reached | None = None) -> Sequence[Position]:
        self._log.begun = (self._alone, records, reached)
        raise Died


class FakeLogWithBegun(MemoryLog):
    """As a broker: what an earlier one had begun is over when its successor's `alone` is entered, and not before."""

    begun: tuple[Alone, Sequence[Outgoing], Reached | None] | None = None

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[MemoryAlone]:
        if self.begun is not None:
            (earlier, records, reached), self.begun = self.begun, None
            await earlier.append(records, reached)
        async with super().alone(name) as one:
            yield one


async def test_who_takes_over_asks_where_the_group_stands_when_what_was_begun_is_over(release: Any) -> None:
    log, reaction = FakeLogWithBegun(), release(NOTE).reactions["note"]
    await log.create(wanted(NAMES))
    old, new = (Reactor(log, NAMES, reaction, quiet=0) for _ in range(2))
    await old.begin()
    async with log.subscribe(old.group, old.topics) as member:
        await log.append([to_outgoing(RecordIngested(**said_by("acme"), kind="order", data="{}"), NAMES)])
        await old.step(member, 0)  # now it holds the partition
        for held in old._held.values():
            held.alone = FakeAppenderThatDies(held.alone, log)
        with pytest.raises(Died):
            await old.step(member, 0)
    async with log.subscribe(new.group, new.topics) as member:
        while await new.step(member, 0):
            pass
    for each in (old, new):
        await each.end()
    assert log.begun is None, "the new one came to the partition"
    found = [event.type async for event in events_of(log, "company-data")]
    assert found == ["record.ingested", "memory.noted"] and new.ran == 0
