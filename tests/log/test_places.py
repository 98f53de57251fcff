"""Where whose records lie is remembered: nothing of a company's is left out, and little of others' is fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from schemas.topics import TopicNames
from streams.errors import MissingOffsets
from streams.history import stretches
from streams.history.places import Places
from streams.history.stretches import MOST, NAMES, Stretches
from streams.history.whose import Owner
from streams.log.memory import MemoryLog
from streams.log.port import EventLog, Outgoing, Record, TopicSpec
from tests.log.conftest import Faults

COMPANIES = ("acme", "acme2", "globex", "initech")


class Fetching:
    """A log that counts what is read of it."""

    def __init__(self, log: EventLog) -> None:
        self._log, self.records = log, 0

    async def read(self, *where: Any) -> AsyncIterator[Sequence[Record]]:
        async for batch in self._log.read(*where):
            self.records += len(batch)
            yield batch


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Of logs so small that nothing in them lies far apart."""
    monkeypatch.setattr(stretches, "NEAR", 256)
    return Places(tmp_path / "places")


async def owned(log: Any, places: Places, topic: str, start: int, stop: int, company: str) -> list[int]:
    owner = Owner(company, TopicNames(), {})
    found = [batch async for batch in places.read(log, topic, 0, start, stop, company)]
    return [record.offset for batch in found for record in batch if owner.may_own(record)]


def some(dice: Random) -> list[Outgoing]:
    """Some records of one company, or of all together; now and then without a key."""
    names = dice.choice([(dice.choice(COMPANIES),), COMPANIES])
    keys = [
        dice.choice((None, name.encode(), f"{name}/{dice.random()}".encode())) for name in dice.choices(names, k=40)
    ]
    return [Outgoing("", key, f"of {dice.choice(COMPANIES)}".encode()) for key in keys]


async def test_every_build_finds_what_a_build_without_a_memory_finds(
    log: EventLog, topic: str, faults: Faults, places: Places
) -> None:
    dice, first = Random(7), 0
    for _ in range(6):
        for _ in range(dice.randrange(1, 30)):
            await log.append([each._replace(topic=topic, partition=0) for each in some(dice)])
        if dice.random() < 0.3:
            await faults.abort([Outgoing(topic, b"acme", b"never said", partition=0)])
        if dice.random() < 0.2:
            await faults.truncate(topic, 0, first := first + dice.randrange(100))
        end = (await log.ends(topic))[0]
        start = dice.choice((first, dice.randrange(first, end)))
        stop = dice.choice((end, dice.randrange(start, end + 1)))
        for company in COMPANIES:
            bare = await owned(log, Places(), topic, start, stop, company)
            assert await owned(log, places, topic, start, stop, company) == bare


async def test_what_lies_between_a_companys_stretches_is_fetched_once(places: Places) -> None:
    log, topic = await crowded()
    first, again = Fetching(log), Fetching(log)
    end = (await log.ends(topic))[0]
    acme = await owned(first, places, topic, 0, end, "acme")
    assert first.records == end
    assert await owned(again, places, topic, 0, end, "acme") == acme
    assert len(acme) == 200
    assert again.records < end / 4  # others may share the line


async def test_what_was_said_since_is_found_beside_what_was_known(places: Places) -> None:
    log, topic = await crowded()
    await owned(log, places, topic, 0, 4000, "globex")
    end = (await log.ends(topic))[0]
    assert await owned(log, places, topic, 0, end, "acme") == await owned(log, Places(), topic, 0, end, "acme")


async def test_a_topic_that_was_made_anew_is_read_anew(places: Places) -> None:
    log, topic = await crowded()
    end = (await log.ends(topic))[0]
    await owned(log, places, topic, 0, end, "acme")
    other, _ = await crowded(of="initech")
    for company in ("acme", "initech"):
        assert await owned(other, places, topic, 0, end, company) == await owned(
            other, Places(), topic, 0, end, company
        )


async def test_a_build_that_ends_early_keeps_what_it_read(places: Places) -> None:
    log, topic = await crowded()
    reading = places.read(log, topic, 0, 0, 9000, "acme")
    read = len(await anext(reading))
    await reading.aclose()
    again = Fetching(log)
    assert len(await owned(again, places, topic, 0, 9000, "globex")) == 0
    assert again.records < 9000 - read / 2  # others may share the line


async def test_offsets_that_are_gone_are_named_whatever_is_remembered(places: Places) -> None:
    log, topic = await crowded()
    end = (await log.ends(topic))[0]
    await owned(log, places, topic, 0, end, "acme")
    log.truncate(topic, 0, 100)  # nothing of acme's
    for start, stop in ((0, end), (200, end + 1), (0, 50)):
        with pytest.raises(MissingOffsets):
            await owned(log, places, topic, start, stop, "acme")


@pytest.mark.parametrize("at", [0, 20, -1])
async def test_a_spoilt_memory_is_made_anew(places: Places, tmp_path: Path, at: int) -> None:
    log, topic = await crowded()
    end = (await log.ends(topic))[0]
    acme = await owned(log, places, topic, 0, end, "acme")
    (kept,) = (tmp_path / "places").iterdir()
    spoilt = bytearray(kept.read_bytes())
    spoilt[at] ^= 1
    kept.write_bytes(spoilt)
    anew, again = Fetching(log), Fetching(log)
    assert await owned(anew, places, topic, 0, end, "acme") == acme
    assert await owned(again, places, topic, 0, end, "acme") == acme
    assert again.records < end / 4 < anew.records == end


async def test_a_folder_that_takes_nothing_costs_no_build(tmp_path: Path) -> None:
    log, topic = await crowded()
    (tmp_path / "places").write_text("a file")
    assert len(await owned(log, Places(tmp_path / "places"), topic, 0, 9000, "acme")) == 200
    assert len(await owned(log, Places(tmp_path / "not" / "there"), topic, 0, 9000, "acme")) == 200


async def crowded(of: str = "acme") -> tuple[MemoryLog, str]:
    """Nine thousand records, two hundred of them one company's, in two stretches."""
    log, topic = MemoryLog(), "crowd"
    await log.create([TopicSpec(topic, 1)])
    of_all = [f"others{number % 500}" for number in range(9000)]
    of_all[2000:2100] = of_all[7000:7100] = [of] * 100
    await log.append([Outgoing(topic, name.encode(), b"said", partition=0) for name in of_all])
    return log, topic


def record(offset: int, key: bytes | None) -> Record:
    return Record("t", 0, offset, 0, key, b"")


def test_any_number_of_names_takes_a_bounded_memory() -> None:
    dice = Random(3)
    known = Stretches(b"salt", 0, 0, {}, [])
    offsets = sorted(dice.sample(range(40_000_000), 40_000))
    keys = [dice.choice((None, b"%d" % dice.randrange(1 << 60), b"acme/1")) for _ in offsets]
    known.learn([record(offset, key) for offset, key in zip(offsets, keys, strict=True)])
    assert max(map(len, (known.keyless, *known.lines.values()))) <= 2 * MOST
    assert len(known.lines) <= NAMES
    inside = list(known.of("acme", 0, known.next))
    assert all(before[1] <= after[0] for before, after in pairwise(inside))
    for offset, key in zip(offsets, keys, strict=True):
        if key is None or key.startswith(b"acme"):
            assert any(start <= offset < stop for start, stop in inside)


def test_what_lies_far_apart_stays_apart() -> None:
    known = Stretches(b"salt", 0, 0, {}, [])
    for at in range(20):
        known.learn([record(at * 50_000 + n, b"acme") for n in range(500)])
    assert sum(stop - start for start, stop in known.of("acme", 0, known.next)) == 20 * 500
    assert list(known.of("acme", 100, 200)) == [(100, 200)]
    assert list(known.of("acme", 600, 40_000)) == []
