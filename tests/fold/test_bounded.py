"""However much a batch asks of a projection, it is folded a bounded piece at a time, and others have turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from schemas.company import TextIngested
from schemas.envelope import Event
from streams.fold import pieces
from streams.fold.pieces import PIECE_SECONDS
from streams.fold.shard import READ_BYTES, READ_ROWS
from tests.fold.test_fold import TEXTS, TOPIC, Texts, World, batch, text
from tests.fold.test_refused import bad, breaks, kept_refusals, places

LARGE = 900_000


def touched(state: Texts, event: Event) -> Texts:
    """A small event changes a row as large as any."""
    assert isinstance(event, TextIngested)
    return msgspec.structs.replace(state, texts=(event.id, *(state.texts[1:] or ("x" * LARGE,))))


async def test_small_events_about_large_rows_are_folded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """8,000 of them would be eight gigabytes, and the same again at each start."""
    world, count = World(replace(TEXTS, fold=touched)), 200
    await world.folding.step(batch([text(n, f"e{n}") for n in range(count)]))
    world.shard.fitting = 1 << 20  # as after a restart
    read: list[Sequence[bytes | None]] = []
    real = world.shard.store.get

    def get(keys: Sequence[bytes]) -> Sequence[bytes | None]:
        read.append(real(keys))
        return read[-1]

    monkeypatch.setattr(world.shard.store, "get", get)
    await world.folding.step(batch([text(count + n, f"e{n}") for n in range(count)], start=count))
    assert max(map(len, read)) <= READ_ROWS
    wasted = 20 * (READ_BYTES + READ_ROWS * LARGE)
    assert sum(len(row or b"") for some in read for row in some) <= 2 * count * LARGE + wasted
    assert world.shard.next(TOPIC) == 2 * count
    assert {row.texts[0] for row in world.rows().values()} == {f"i{count + n}" for n in range(count)}


@pytest.mark.parametrize("refused", [False, True])
async def test_events_that_take_long_are_folded_a_few_at_a_time(refused: bool, monkeypatch: pytest.MonkeyPatch):
    """A thousand that take a seventh of a second each would be folded in one go, and again at each start."""
    now, each = 0.0, PIECE_SECONDS / 2

    def slow(state: Texts, event: Event) -> Texts:
        nonlocal now
        now += each
        return breaks(state, event)

    monkeypatch.setattr(pieces, "time", SimpleNamespace(monotonic=lambda: now))
    world = World(replace(TEXTS, fold=slow))
    ends: list[float] = []
    append = world.folding._ports.append

    async def noted(*told: Any) -> int | None:
        ends.append(now)
        return await append(*told)

    world.folding._ports = world.folding._ports._replace(append=noted)
    events = [bad(n) if refused and n % 7 == 3 else text(n, f"e{n % 9}") for n in range(100)]
    await world.folding.step(batch(events))
    assert world.shard.next(TOPIC) == 100
    assert places(kept_refusals(world)) == ([n for n in range(100) if n % 7 == 3] if refused else [])
    waits = [after - before for before, after in zip([0.0, *ends], ends, strict=False)]
    assert max(waits[8:]) <= 8 * PIECE_SECONDS  # once it is known how many fit
    assert now <= 6 * 100 * each
