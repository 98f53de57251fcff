"""A release that refuses everybody's events ends before it passes them. One company alone never makes it end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from projections.projection import Projection
from schemas.company import TextIngested
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.errors import EverythingRefused, RowsUnreadable
from streams.fold.circuit import COMPANIES, IN_A_ROW
from streams.fold.folding import Folding
from streams.fold.shard import LOOK_BELOW
from streams.log.port import Extent
from streams.state.store import MemoryStore
from tests.fold.test_fold import TEXTS, TOPIC, Texts, World, batch, kept, text


def of(n: int, companies: int, entity: str = "e") -> TextIngested:
    return msgspec.structs.replace(text(n, entity), company=f"c{n % companies}")


def many(count: int, companies: int) -> Sequence[TextIngested]:
    return [of(n, companies) for n in range(count)]


def raises(state: Texts, event: Event) -> Texts:
    raise KeyError("a bug of this release")


BUG = replace(TEXTS, fold=raises)


def released(world: World, projection: Projection[Any]) -> World:
    """Another release takes the same shard over."""
    world.folding = Folding([projection], TopicNames(), world.folding._ports)
    world.shard = world.folding.open(projection, 0, world.shard.store)
    world.shard.restored()
    world.folding.begin(TOPIC, 0, Extent(0, 0))
    return world


async def test_a_bug_that_refuses_everybodys_events_passes_none_and_the_mended_release_folds_them_all():
    world, events = World(BUG), many(1000, 50)
    with pytest.raises(EverythingRefused, match=r"texts-v1-changelog/0: 20 events in a row.*a bug of this release"):
        await world.folding.step(batch(events))
    assert world.batches == []
    await released(world, TEXTS).folding.step(batch(events))
    assert sum(len(row.texts) for row in world.rows().values()) == 1000
    assert [*world.shard.refused()] == []


@pytest.mark.parametrize("companies", range(1, COMPANIES))
async def test_fewer_companies_never_open_it(companies: int):
    world = World(BUG)
    await world.folding.step(batch(many(500, companies)))
    assert len([*world.shard.refused()]) == 500


async def test_it_counts_anew_from_each_event_that_is_taken():
    def fold(state: Texts, event: Event) -> Texts:
        return raises(state, event) if event.company != "acme" else kept(state, event)

    world = World(replace(TEXTS, fold=fold))
    events = [text(n) if n % IN_A_ROW == 7 else of(n, 5) for n in range(400)]
    await world.folding.step(batch(events))
    assert world.shard.next(TOPIC) == 400
    assert len([*world.shard.refused()]) == 380


async def test_events_that_come_one_at_a_time_open_it_as_well_and_a_restart_goes_on_counting():
    world = World(BUG)
    for n in range(IN_A_ROW - 1):
        await world.folding.step(batch([of(n, 5)], start=n))
    for _ in range(3):
        released(world, BUG)
        with pytest.raises(EverythingRefused):
            await world.folding.step(batch([of(IN_A_ROW, 5)], start=IN_A_ROW - 1))
        assert world.shard.next(TOPIC) == IN_A_ROW - 1
    await released(world, TEXTS).folding.step(batch([of(IN_A_ROW, 5)], start=IN_A_ROW - 1))
    assert world.shard.next(TOPIC) == IN_A_ROW


class Asked(MemoryStore):
    """Says how much of it was looked at."""

    looked = 0

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        self.looked += len(keys)
        return super().get(keys)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for each in super().scan(prefix):
            self.looked += 1
            yield each


async def test_whoever_takes_over_does_not_read_all_that_a_company_had_refused():
    world = World(BUG)
    await world.folding.step(batch(many(5_000, 1)))
    assert len([*world.shard.refused()]) == 5_000
    kept_rows, world.shard.store = world.shard.store, (asked := Asked())
    asked.write([*kept_rows.scan()], kept_rows.position())
    released(world, BUG)
    assert asked.looked <= LOOK_BELOW + 5


async def test_keys_and_sizes_are_the_events_own_and_open_nothing():
    world = World(replace(TEXTS, key=lambda _: "nobody/e"))
    await world.folding.step(batch(many(100, 50)))
    assert {each.reason for each in world.shard.refused()} == {"bad_key"}


class Numbers(msgspec.Struct, frozen=True):
    texts: tuple[int, ...] = ()


def numbered(state: Numbers, event: Event) -> Numbers:
    return Numbers((*state.texts, event.time))


OTHER: Projection[Any] = replace(TEXTS, state=Numbers, fold=numbered, initial=lambda _: Numbers())


async def test_a_state_that_was_changed_under_its_version_passes_nothing_and_the_old_release_goes_on():
    world = World()
    await world.folding.step(batch(many(9, 9)))
    released(world, OTHER)
    with pytest.raises(RowsUnreadable, match="cannot be read as Numbers"):
        await world.folding.step(batch([of(9, 9)], start=9))
    assert world.shard.next(TOPIC) == 9
    await released(world, TEXTS).folding.step(batch([of(9, 9)], start=9))
    assert world.rows()["c0/e"] == Texts(("0 ", "9 "))


async def test_unreadable_rows_of_one_company_refuse_its_own_events_only():
    world = World()
    await world.folding.step(batch([text(n, f"e{n}") for n in range(50)]))
    released(world, OTHER)
    events = [text(50 + n, f"e{n}") for n in range(50)] + [of(100 + n, 5) for n in range(5)]
    await world.folding.step(batch(events, start=50))
    assert [each.offset for each in world.shard.refused()] == list(range(50, 100))
    assert world.shard.load([f"c{n}/e" for n in range(5)]).keys() == {f"c{n}/e" for n in range(5)}
