"""Slots stay dense, owners take turns, and the limits hold, for any coming and going."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_workers.serve.engine.kv import GROWTH, KVCache
from gpu_workers.serve.engine.schedule import AGAIN_SHARE, EngineRow, Limits, Move, Schedule

LIMITS = Limits(rows=4, cells=120, prefill=50)

lengths = st.tuples(st.integers(1, 60), st.integers(1, 30))


def reach(schedule: Schedule[Any]) -> int:
    """Positions that the KV cache may have to hold before every running row has ended."""
    return max((row.final_length for row in schedule.running), default=0)


@given(st.lists(lengths, max_size=20), st.data())
def test_every_row_keeps_its_kv_until_it_leaves(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    schedule: Schedule[None] = Schedule(LIMITS)
    rows = [EngineRow(i, [0] * prompt, None, limit) for i, (prompt, limit) in enumerate(sizes)]
    for row in rows:
        schedule.submit(row)
    kv: dict[int, int] = {}
    """What the cache holds: slot -> ticket."""
    left: set[int] = set()
    order: list[int] = []
    prefilled = False
    while batch := schedule.next():
        if batch.prefill:
            assert not prefilled or len(batch.rows) == len(schedule.running), "running rows get on between prompts"
            order += [row.ticket for _, row in batch.rows]
            kv |= {slot: row.ticket for slot, row in batch.rows}
            fresh = len(batch.rows) * max(len(row.prompt) for _, row in batch.rows)
            assert len(batch.rows) == 1 or fresh <= LIMITS.prefill
        prefilled = batch.prefill
        assert len(schedule.running) <= LIMITS.rows
        assert len(schedule.running) * reach(schedule) <= LIMITS.cells
        assert [kv[slot] for slot in range(len(schedule.running))] == [row.ticket for row in schedule.running]
        gone = data.draw(st.sets(st.sampled_from([row for row in rows if row.ticket not in left]), min_size=1))
        left |= {row.ticket for row in gone}
        for move in schedule.leave(gone):
            assert move.target < move.source
            kv[move.target] = kv[move.source]
    assert order == sorted(order), "first come, first served"
    assert left == {row.ticket for row in rows}


def served(schedule: Schedule[None], steps: int) -> list[EngineRow[None]]:
    """Rows in the order in which they end; each says a token a step."""
    ended: list[EngineRow[None]] = []
    for _ in range(steps):
        if (batch := schedule.next()) is None:
            break
        for _, row in batch.rows:
            row.said.append(0)
        done = [row for _, row in batch.rows if len(row.said) >= row.limit]
        schedule.leave(done)
        ended += done
    return ended


def test_owners_take_turns_whoever_asks_more() -> None:
    schedule: Schedule[None] = Schedule(LIMITS)
    for i in range(500):
        schedule.submit(EngineRow(i, [0], None, 4, owner="flood"))
    for i in range(3):
        schedule.submit(EngineRow(1_000 + i, [0], None, 4, owner="small"))
    first = [row.ticket for row in served(schedule, 40)][:12]
    assert {1_000, 1_001, 1_002} <= set(first)


def test_a_flood_of_one_token_questions_does_not_stop_an_answer() -> None:
    schedule: Schedule[None] = Schedule(LIMITS)
    schedule.submit(EngineRow(0, [0], None, 20, owner="small"))
    for i in range(1, 500):
        schedule.submit(EngineRow(i, [0], None, 1, owner="flood"))
    assert 0 in [row.ticket for row in served(schedule, 45)]


def test_long_rows_never_make_short_ones_wait_and_are_not_starved() -> None:
    """The two halves have nothing in common: all rows of the short one fit at once, whatever runs in the other."""
    short, long = (Schedule[None](half) for half in Limits(rows=32, cells=65_536).halves())
    reach = short.limits.cells // 32
    assert reach >= 1_000 and long.limits.cells >= 30_000
    for i in range(32):
        short.submit(EngineRow(i, [0] * (reach - 100), None, 100))
    served(short, 40)
    assert len(short.running) == 32
    dice = Random(0)
    for i in range(60):
        prompt = 20_000 if i % 10 == 5 else dice.randrange(reach, 4_000)
        long.submit(EngineRow(i, [0] * prompt, None, 30, owner=f"c{i % 4}"))
    order = [row.ticket for row in served(long, 10_000)]
    assert sorted(order) == list(range(60))
    assert max(abs(place - ticket) for place, ticket in enumerate(order)) < 16, "each about when it came"


HALL = Limits(rows=8, cells=4_000, prefill=500, turn=20)
TURN = max(HALL.turn, HALL.cells // AGAIN_SHARE)
"""The longest that any row of this hall has."""
hostile = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(1, 3_000), st.integers(1, 3_900), st.floats(0, 1)), max_size=12
)


def steps_until(schedule: Schedule[None], row: EngineRow[None], most: int) -> int:
    schedule.submit(row)
    for step in range(1, most + 1):
        if row in served(schedule, 1):
            return step
    return most + 1


@settings(deadline=None)
@given(hostile, st.integers(1, 200), st.integers(1, 60), st.integers(0, 300))
@example([(owner, 10, 3_900, 0.0) for owner in "xyz"], 110, 20, 2)
@example([("x", 10, 1_000, 0.0)] * 3 + [("y", 3_000, 1_000, 0.5)] * 3 + [("z", 3_000, 1_000, 0.9)] * 3, 110, 50, 7)
def test_a_modest_row_is_done_within_a_few_turns(
    others: list[tuple[str, int, int, float]], prompt: int, limit: int, before: int
) -> None:
    """Three owners, however many rows, however long: each has one turn, at most, between two of the fourth's."""
    schedule: Schedule[None] = Schedule(HALL)
    for i, (owner, length, most, done) in enumerate(others):
        words = min(most, HALL.cells - length)
        schedule.submit(EngineRow(i, [0] * length, None, words, owner=owner, said=[0] * int(done * (words - 1))))
    served(schedule, before)
    turns = -(-limit // HALL.turn)
    most = turns * (4 * TURN + 8) + 2 * limit
    assert steps_until(schedule, EngineRow(99, [0] * prompt, None, limit, owner="acme"), most) <= most


def test_the_longest_answers_of_three_owners_cost_a_fourth_three_turns() -> None:
    """What the defaults leave for long rows: three answers of 30,000 tokens stood before 50 for 94,934 steps."""
    schedule: Schedule[None] = Schedule(replace(Limits().halves()[1], cells=31_638))
    for i in range(3):
        schedule.submit(EngineRow(i, [0] * 10, None, 31_628, owner=f"c{i}"))
    served(schedule, 2)
    assert steps_until(schedule, EngineRow(9, [0] * 1_100, None, 50, owner="acme"), 900) <= 3 * 256 + 50 + 8


def test_a_flood_of_full_rows_is_one_turn_and_not_one_for_each() -> None:
    """Each alone fills the hall and ends before its turn does: it never gives way, its owner does."""
    schedule: Schedule[None] = Schedule(HALL)
    for i in range(200):
        schedule.submit(EngineRow(i, [0] * 3_990, None, 10, owner="flood"))
    served(schedule, 3)
    assert steps_until(schedule, EngineRow(999, [0] * 200, None, 10, owner="small"), 200) <= 4 * 10


def test_every_row_says_all_of_its_words_however_often_it_gives_way() -> None:
    schedule: Schedule[None] = Schedule(HALL)
    rows: list[EngineRow[None]] = [
        EngineRow(i, [0] * (10 + 300 * (i % 3)), None, 1 + 97 * i, owner=f"c{i % 4}") for i in range(24)
    ]
    for row in rows:
        schedule.submit(row)
    kv: dict[int, EngineRow[None]] = {}
    let_in: Counter[int] = Counter()
    while batch := schedule.next():
        follow(kv, batch.moves)
        if batch.prefill:
            kv |= dict(batch.rows)
            let_in.update(row.ticket for _, row in batch.rows)
        assert len(schedule.running) * reach(schedule) <= HALL.cells
        assert [kv[slot] for slot in range(len(schedule.running))] == schedule.running
        for _, row in batch.rows:
            row.said.append(0)
        follow(kv, schedule.leave([row for row in schedule.running if len(row.said) >= row.limit]))
    assert all(len(row.said) == row.limit for row in rows)
    assert max(let_in.values()) > 1, "else nobody gave way"
    assert all(let_in[row.ticket] <= 1 + row.limit // HALL.turn for row in rows)


def follow(kv: dict[int, EngineRow[None]], moves: list[Move]) -> None:
    for source, target in moves:
        kv[target] = kv[source]


@pytest.mark.parametrize("owners", [("a", "a"), (None, None)])
def test_nobody_gives_way_to_rows_of_its_own_owner(owners: tuple[str | None, str | None]) -> None:
    """To be computed again would only cost that owner."""
    schedule: Schedule[None] = Schedule(HALL)
    for i, owner in enumerate(owners):
        schedule.submit(EngineRow(i, [0] * 10, None, 3_000, owner=owner))
    assert [row.ticket for row in served(schedule, 7_000)] == [0, 1]


mixes = st.lists(st.tuples(st.integers(1, 33), st.integers(1, 3_000)), max_size=12)


@given(mixes, st.integers(1, 5))
def test_the_cache_keeps_its_promise_at_any_moment(mix: list[tuple[int, int]], layers: int) -> None:
    class Counted(KVCache):
        """Adds up what is there whenever something new is made."""

        peak = 0

        def _empty(self, slots: int, positions: int) -> torch.Tensor:
            made = super()._empty(slots, positions)
            held = sum(layer.shape[1] * layer.shape[3] for layer in getattr(self, "store", []))
            self.peak = max(self.peak, held + slots * positions)
            return made

    cells = 6_000
    cache = Counted(layers, 1, 1, torch.zeros(1), cells)
    for slots, positions in mix:
        if slots * positions > cache.usable:
            continue
        filled = [min(cache.slots, slots), min(cache.positions, positions)]
        for layer in cache.store:
            layer[:, : filled[0], :, : filled[1]] = 7.0
        cache.reserve(slots, positions)
        assert cache.slots >= slots and cache.positions >= positions
        assert cache.slots * cache.positions <= cache.usable
        assert all((layer[:, : filled[0], :, : filled[1]] == 7.0).all() for layer in cache.store)
    assert cache.peak <= cells * layers


def test_many_short_rows_and_then_a_long_one_stay_within_the_promise() -> None:
    """Rows and length each keep no maximum of their own: 32 x 8,000 was sixteen times the promise."""
    cache = KVCache(2, 1, 1, torch.zeros(1), 16_000)
    cache.reserve(32, GROWTH)
    cache.reserve(1, 8_000)
    assert cache.slots * cache.positions <= cache.usable < 16_000
