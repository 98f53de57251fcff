"""Slots stay dense, nobody overtakes, and the limits hold, for any coming and going."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpu_workers.serve.schedule import Limits, Row, Schedule

LIMITS = Limits(rows=4, cells=120, prefill=50)

lengths = st.tuples(st.integers(1, 60), st.integers(1, 30))


@given(st.lists(lengths, max_size=20), st.data())
def test_every_row_keeps_its_kv_until_it_leaves(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    schedule: Schedule[None] = Schedule(LIMITS)
    rows = [Row(i, [0] * prompt, None, limit) for i, (prompt, limit) in enumerate(sizes)]
    schedule.waiting.extend(rows)
    kv: dict[int, int] = {}
    """What the cache holds: slot -> ticket."""
    left: set[int] = set()
    order: list[int] = []
    while batch := schedule.next():
        if batch.prefill:
            order += [row.ticket for _, row in batch.rows]
            kv |= {slot: row.ticket for slot, row in batch.rows}
            fresh = sum(len(row.prompt) for _, row in batch.rows)
            assert len(batch.rows) == 1 or fresh <= LIMITS.prefill
        assert len(schedule.running) <= LIMITS.rows
        assert len(schedule.running) == 1 or len(schedule.running) * schedule.reach() <= LIMITS.cells
        assert [kv[slot] for slot in range(len(schedule.running))] == [row.ticket for row in schedule.running]
        gone = data.draw(st.sets(st.sampled_from([row for row in rows if row.ticket not in left]), min_size=1))
        left |= {row.ticket for row in gone}
        for move in schedule.leave(gone):
            assert move.target < move.source
            kv[move.target] = kv[move.source]
    assert order == sorted(order), "first come, first served"
    assert left == {row.ticket for row in rows}
