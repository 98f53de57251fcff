"""The watchman on a log in memory: what it says once, when it turns, when it ends the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rillfold.workers.watched import stands
from streams.errors import Unreachable
from streams.health.watch import Patience, Sight
from streams.health.watchman import EX_SOFTWARE, Watchman
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, Record, TopicSpec

TP = ("company-data", 0)


class FakeAwayLog(MemoryLog):
    """A log whose broker can be away."""

    away = False
    readable: int | None = None
    """Offsets that it reads between two questions for its ends."""
    left = 0

    async def ends(self, topic: str) -> Mapping[int, int]:
        if self.away:
            raise Unreachable("localhost:9", "refused")
        self.left = self.readable or 0
        return await super().ends(topic)

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None = None, *beat: Any
    ) -> AsyncIterator[Sequence[Record]]:
        if self.readable is not None and stop is not None:
            self.left -= stop - start
            if self.left < 0:
                raise TimeoutError
        async for batch in super().read(topic, partition, start, stop, *beat):
            yield batch


class Scene:
    """A worker at a position, a log, a clock that a test turns."""

    def __init__(self) -> None:
        self.now, self.position = 0.0, 0
        self.codes: list[int] = []
        self.log = FakeAwayLog()
        self.watchman = Watchman(self.look, Patience(25, 60), lambda: self.now, self.codes.append)

    def look(self) -> Sight:
        if self.position < 0:
            raise RuntimeError("dictionary changed size during iteration")
        return Sight("working", {TP: self.position})

    async def until(self, now: float) -> None:
        while self.now < now:
            self.now += 1
            await self.watchman.step(self.log)


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.log.create([TopicSpec("company-data", 1)])
    await scene.log.append([Outgoing("company-data", b"k", b"v")] * 10)
    return scene


def said(records: Sequence[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.name == "streams.health.watchman"]


async def test_a_stall_is_named_within_thirty_seconds_once_and_then_the_process_ends(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.position = 4
    await scene.until(30)
    assert said(caplog.records) == ["Stalled for 25 s: company-data/0 stands at 4 of 10. Ends itself in 60 s."]
    assert stands(scene.watchman) == "company-data/0 stands at 4 of 10"
    assert scene.watchman.stalls == 1
    await scene.until(85)
    assert scene.codes == []
    await scene.until(86)
    assert scene.codes[:1] == [EX_SOFTWARE]


async def test_a_stall_that_ends_is_said_and_begins_anew(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.position = 4
    await scene.until(60)
    scene.position = 5
    await scene.until(70)
    assert said(caplog.records)[1:] == ["No longer stalled: at work"]
    assert stands(scene.watchman) is None
    await scene.until(140)
    assert scene.watchman.stalls == 2
    assert scene.codes == []


async def test_a_log_that_is_away_is_named_though_nothing_is_behind(scene: Scene) -> None:
    scene.position = 10
    await scene.until(100)
    assert stands(scene.watchman) is None
    scene.log.away = True
    await scene.until(124)
    assert stands(scene.watchman) is None
    await scene.until(126)
    assert "does not answer" in str(stands(scene.watchman))
    await scene.until(185)
    assert scene.codes[:1] == [EX_SOFTWARE]


async def test_an_end_that_holds_no_record_is_read_and_found_void(scene: Scene) -> None:
    scene.position = 10
    await scene.until(1)
    scene.log._topics["company-data"][0].end = 11  # as a transaction's ending would leave it
    await scene.until(300)
    assert stands(scene.watchman) is None
    assert scene.watchman.state.places[TP].void == 11
    assert scene.codes == []


async def test_what_is_looked_through_in_one_look_is_not_looked_through_again(scene: Scene) -> None:
    """A transaction that was aborted can have left more than anybody reads in the time of one look."""
    scene.position = 10
    await scene.until(1)
    scene.log._topics["company-data"][0].end = 2_000
    scene.log.readable = 200
    await scene.until(300)
    assert stands(scene.watchman) is None
    assert scene.watchman.state.places[TP].void == 2_000
    assert scene.watchman.stalls == 0


async def test_a_topic_that_is_deleted_is_named_at_once_and_ends_nobody(scene: Scene) -> None:
    scene.position = 10
    await scene.until(2)
    assert stands(scene.watchman) is None
    scene.log.delete("company-data")
    await scene.until(200)
    assert "Topic company-data does not exist" in str(stands(scene.watchman))
    await scene.log.create([TopicSpec("company-data", 1)])
    scene.position = 0
    await scene.until(201)
    assert (stands(scene.watchman), scene.codes, scene.watchman.stalls) == (None, [], 0)


async def test_a_worker_that_cannot_be_looked_at_stands_where_it_stood(scene: Scene) -> None:
    scene.position = 4
    await scene.until(2)
    scene.position = -1
    await scene.until(20)
    assert stands(scene.watchman) is None
    await scene.until(100)
    assert scene.codes[:1] == [EX_SOFTWARE]


async def test_a_broker_that_is_away_when_its_watch_begins_is_asked_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.health.watchman.LOOK_SECONDS", 0.001)
    tried = 0

    @asynccontextmanager
    async def opened() -> AsyncIterator[MemoryLog]:
        nonlocal tried
        tried += 1
        scene.now += 10
        if tried < 4:
            raise Unreachable("localhost:9", "refused")
        yield scene.log

    scene.position = 10
    with scene.watchman.on_duty(opened):
        while not any(place.end for place in scene.watchman.state.places.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert (tried, scene.watchman.stalls) == (4, 1)
    assert stands(scene.watchman) is None
