"""Stacked, padded or ragged: every layout adds what each row's own two matrices would."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.serve.engine.lanes import Lanes, Site, assign, plan

IN, OUTS = 16, (24, 8)
MODULES = ("one", "two")


def adapter(seed: int, rank: int, modules: tuple[str, ...] = MODULES) -> LoraWeights:
    dice = torch.Generator().manual_seed(seed)
    pairs = {
        name: (torch.randn(rank, IN, generator=dice), torch.randn(out, rank, generator=dice))
        for name, out in zip(MODULES, OUTS, strict=True)
        if name in modules
    }
    return LoraWeights(pairs, rank)


ADAPTERS = [adapter(0, 4), adapter(1, 8), adapter(2, 2, ("one",)), adapter(3, 8, ("two",)), adapter(4, 1)]


def expected(rows: list[tuple[LoraWeights | None, torch.Tensor]], module: str, out: int) -> torch.Tensor:
    parts = []
    for weights, x in rows:
        a, b = weights.pairs.get(module, (torch.zeros(1, IN), torch.zeros(out, 1))) if weights else (None, None)
        parts.append(x @ a.T @ b.T if a is not None and b is not None else torch.zeros(len(x), out))
    return torch.cat(parts)


def check(batch: list[tuple[int | None, int]], lanes: Lanes, site: Site) -> str:
    """Runs one step for (adapter, tokens) rows and names the layout that it took."""
    chosen = [(None if i is None else ADAPTERS[i], count) for i, count in batch]
    seats = lanes.seat({weights for weights, _ in chosen if weights})
    ordered = sorted(chosen, key=lambda row: -1 if row[0] is None else seats[row[0]])
    dice = torch.Generator().manual_seed(len(batch))
    rows = [(weights, torch.randn(count, IN, generator=dice)) for weights, count in ordered]
    step = plan([seats[w] if w else None for w, _ in rows], [len(x) for _, x in rows])
    x = torch.cat([x for _, x in rows])
    outs = [torch.zeros(len(x), out) for out in OUTS]
    site.add(step, x, outs)
    for module, out, got in zip(MODULES, OUTS, outs, strict=True):
        torch.testing.assert_close(got, expected(rows, module, out), rtol=1e-4, atol=1e-4)
    return (
        "nobody"
        if not step.longest
        else "ragged"
        if step.ends is not None
        else "padded"
        if step.gather is not None
        else "even"
    )


def fresh() -> tuple[Lanes, Site]:
    site = Site(MODULES, [(out, IN) for out in OUTS])
    return Lanes([site], torch.zeros(1)), site


@pytest.mark.parametrize(
    ("batch", "layout"),
    [
        ([(None, 3), (None, 1)], "nobody"),
        ([(0, 1), (1, 1), (4, 1)], "even"),
        ([(None, 2), (3, 5)], "even"),
        ([(0, 1), (0, 1), (1, 1), (None, 4)], "padded"),
        ([(0, 400), (1, 1), (2, 1), (3, 1), (4, 1)], "ragged"),
    ],
)
def test_each_layout_is_taken_and_right(batch: list[tuple[int | None, int]], layout: str) -> None:
    assert check(batch, *fresh()) == layout


rows = st.tuples(st.none() | st.integers(0, len(ADAPTERS) - 1), st.integers(1, 90))


@settings(deadline=None)
@given(st.lists(st.lists(rows, min_size=1, max_size=9), min_size=1, max_size=4))
def test_any_batch_after_any_other_is_right(batches: list[list[tuple[int | None, int]]]) -> None:
    lanes, site = fresh()
    for batch in batches:
        check(batch, lanes, site)


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 64)), st.sets(st.integers(0, 40), min_size=1))
def test_lanes_are_distinct_kept_and_never_half_empty(held: dict[int, int], wanted: set[int]) -> None:
    held = {key: lane for key, lane in held.items() if list(held.values()).count(lane) == 1}
    lanes = assign(held, wanted)
    assert set(lanes) == wanted and len(set(lanes.values())) == len(wanted)
    assert max(lanes.values()) < 2 * len(wanted)
    for key in wanted & set(held):
        assert lanes[key] == held[key] or held[key] >= 2 * len(wanted)
