"""Stacked, padded or ragged, of any ranks: every layout adds what each row's own two matrices would."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.serve.engine.lanes import (
    IDLE_STEPS,
    LanePart,
    Lanes,
    LaneStack,
    Place,
    Site,
    assign,
    bucket,
    order,
    plan,
)

IN, OUTS = 16, (24, 8)
MODULES = ("one", "two")
Rows = list[tuple[LoraWeights | None, int]]


def adapter(seed: int, rank: int, modules: tuple[str, ...] = MODULES, second: int | None = None) -> LoraWeights:
    """`second` is the rank of module two, where it is another one."""
    dice = torch.Generator().manual_seed(seed)
    ranks = (rank, second or rank)
    pairs = {
        name: (torch.randn(r, IN, generator=dice) / r**0.5, torch.randn(out, r, generator=dice))
        for name, out, r in zip(MODULES, OUTS, ranks, strict=True)
        if name in modules
    }
    return LoraWeights(pairs, max(a.shape[0] for a, _ in pairs.values()))


ADAPTERS = [
    *(adapter(0, 4), adapter(1, 8), adapter(2, 2, ("one",)), adapter(3, 8, ("two",)), adapter(4, 1)),
    *(adapter(5, 64), adapter(6, 16), adapter(7, 9, ("one",)), adapter(8, 3, second=40), adapter(9, 128)),
]
OF_ONE_BUCKET = ADAPTERS[:5]


def expected(rows: list[tuple[LoraWeights | None, torch.Tensor]], module: str, out: int) -> torch.Tensor:
    parts = []
    for weights, x in rows:
        a, b = weights.pairs.get(module, (torch.zeros(1, IN), torch.zeros(out, 1))) if weights else (None, None)
        parts.append(x @ a.T @ b.T if a is not None and b is not None else torch.zeros(len(x), out))
    return torch.cat(parts)


def layout(part: LanePart) -> str:
    return "ragged" if part.ends is not None else "padded" if part.gather is not None else "even"


def check(batch: Rows, lanes: Lanes, site: Site) -> list[tuple[int, str]]:
    """Runs one step for (adapter, tokens) rows and names the bucket and the layout of each of its parts."""
    seats = lanes.seat({weights for weights, _ in batch if weights})
    ordered = sorted(batch, key=lambda row: order(seats[row[0]] if row[0] else None, row[1]))
    dice = torch.Generator().manual_seed(len(batch))
    rows = [(weights, torch.randn(count, IN, generator=dice)) for weights, count in ordered]
    step = plan([seats[w] if w else None for w, _ in rows], [len(x) for _, x in rows])
    x = torch.cat([x for _, x in rows])
    outs = [torch.zeros(len(x), out) for out in OUTS]
    site.add(step, x, outs)
    for module, out, got in zip(MODULES, OUTS, outs, strict=True):
        torch.testing.assert_close(got, expected(rows, module, out), rtol=1e-4, atol=1e-4)
    return [(part.rank, layout(part)) for part in step]


def fresh() -> tuple[Lanes, Site]:
    site = Site(MODULES, [(out, IN) for out in OUTS])
    return Lanes([site], torch.zeros(1)), site


def of(*rows: tuple[int | None, int]) -> Rows:
    return [(None if i is None else ADAPTERS[i], count) for i, count in rows]


@pytest.mark.parametrize(
    ("batch", "parts"),
    [
        (of((None, 3), (None, 1)), []),
        (of((0, 1), (1, 1), (4, 1)), [(8, "even")]),
        (of((None, 2), (3, 5)), [(8, "even")]),
        (of((0, 1), (0, 1), (1, 1), (None, 4)), [(8, "padded")]),
        (of((0, 400), (1, 1), (None, 90)), [(8, "even"), (8, "even")]),
        (of((0, 400), (1, 5), (2, 5), (3, 5), (4, 5)), [(8, "ragged")]),
        (of((9, 1), (5, 2), (6, 1), (0, 1), (7, 1), (8, 1), (None, 1)),
         [(8, "even"), (16, "even"), (64, "padded"), (128, "even")]),
    ],
)  # fmt: skip
def test_each_layout_is_taken_and_right(batch: Rows, parts: list[tuple[int, str]]) -> None:
    assert check(batch, *fresh()) == parts


def test_a_chunk_of_a_prompt_pads_nobody() -> None:
    answers, chunks = [Place(8, 0), Place(8, 2)], [Place(8, 1), Place(8, 3)]
    step = plan([*answers, *chunks], [1, 1, 60, 60])
    assert [(part.lanes, part.longest, layout(part)) for part in step] == [
        (slice(0, 3), 1, "padded"),
        (slice(1, 2), 60, "even"),
        (slice(3, 4), 60, "even"),
    ]


rows = st.tuples(st.none() | st.sampled_from(ADAPTERS), st.integers(1, 90))


@settings(deadline=None)
@given(st.lists(st.lists(rows, min_size=1, max_size=12), min_size=1, max_size=4))
def test_any_batch_after_any_other_is_right(batches: list[Rows]) -> None:
    lanes, site = fresh()
    for batch in batches:
        check(batch, lanes, site)


def test_whoever_comes_moves_nobody_of_another_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anybody padded to another's rank."""
    lanes, site = fresh()
    before = lanes.seat(set(OF_ONE_BUCKET))
    laid = site.stacks[8]
    filled: list[int] = []
    fill = LaneStack.fill
    monkeypatch.setattr(
        LaneStack, "fill", lambda stack, lane, pairs: (filled.append(stack.rank), fill(stack, lane, pairs))[1]
    )
    after = lanes.seat(set(ADAPTERS))
    assert {weights: after[weights] for weights in OF_ONE_BUCKET} == before
    assert site.stacks[8] is laid and laid.a.shape[2] == 8 * len(MODULES)
    assert sorted(filled) == [16, 16, 64, 64, 128]


@pytest.mark.parametrize("number", range(len(OF_ONE_BUCKET)))
def test_what_was_idle_for_long_gives_its_memory_back(number: int) -> None:
    """In whichever lane the one lies that is left."""
    lanes, site = fresh()
    lanes.seat(set(ADAPTERS))
    lanes.seat({OF_ONE_BUCKET[number]})
    assert set(site.stacks) == {8, 16, 64, 128}, "they may be wanted again at once"
    for _ in range(IDLE_STEPS + 1):
        lanes.seat({OF_ONE_BUCKET[number]})
    assert set(site.stacks) == {8} and len(site.stacks[8].a) == 1
    check(of((0, 3), (5, 1), (6, 2)), lanes, site)


def scarce(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Memory for so many lanes of a bucket at a site, and no more."""
    made = LaneStack.__init__

    def make(stack: LaneStack, lanes: int, *args: Any) -> None:
        if lanes > most:
            raise torch.OutOfMemoryError("a fault of the test")
        made(stack, lanes, *args)

    monkeypatch.setattr(LaneStack, "__init__", make)


def test_where_memory_is_short_a_bucket_grows_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 3)
    lanes, site = fresh()
    for batch in (of((0, 1), (1, 2)), of((0, 1), (1, 2), (2, 3)), of((2, 1), (3, 5), (4, 1), (None, 2))):
        check(batch, lanes, site)
    laid = site.stacks[8]
    check(of((3, 1), (2, 2), (0, 3)), lanes, site)
    assert site.stacks[8] is laid and len(laid.a) == 3, "it is not made again at each step"


def test_a_bucket_without_memory_is_as_if_it_had_never_been(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, site = fresh()
    check(of((0, 2), (6, 1)), lanes, site)
    with monkeypatch.context() as patch:
        scarce(patch, 2)
        with pytest.raises(torch.OutOfMemoryError):
            lanes.seat(set(OF_ONE_BUCKET))
        assert set(site.stacks) == {16}
        check(of((0, 2), (1, 1)), lanes, site)
        with pytest.raises(torch.OutOfMemoryError):
            lanes.seat(set(OF_ONE_BUCKET))
        for _ in range(IDLE_STEPS + 1):
            lanes.seat({ADAPTERS[9]})
        assert set(site.stacks) == {128}, "a bucket that has nothing is given back like any other"
    check(of(*((i, 1) for i in range(len(ADAPTERS)))), lanes, site)


def test_lanes_keep_no_adapter_in_memory() -> None:
    lanes, site = fresh()
    gone = adapter(20, 16)
    watched = weakref.ref(gone)
    lanes.seat({gone, ADAPTERS[6]})
    del gone
    gc.collect()
    assert watched() is None
    check([(adapter(21, 16), 3), (ADAPTERS[6], 2)], lanes, site)


def test_what_a_device_must_know_of_a_step_travels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    places = fresh()[0].seat(set(ADAPTERS))
    rows = sorted(((places[weights], 1 + i) for i, weights in enumerate(ADAPTERS)), key=lambda row: order(*row))
    moves: list[torch.Tensor] = []
    to = torch.Tensor.to

    def watched(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        moves.extend([tensor] if "meta" in map(str, args) else [])
        return to(tensor, *args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch.Tensor, "to", watched)
    step = plan([place for place, _ in rows], [count for _, count in rows], "meta")
    assert len(step) > 2 and len(moves) == 1


@given(st.integers(1, 1 << 12))
def test_a_bucket_holds_its_ranks_and_wastes_less_than_half(rank: int) -> None:
    assert rank <= bucket(rank) < max(2 * rank, 9)


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 64)), st.sets(st.integers(0, 40), min_size=1))
def test_lanes_are_distinct_kept_and_never_half_empty(held: dict[int, int], wanted: set[int]) -> None:
    held = {key: lane for key, lane in held.items() if list(held.values()).count(lane) == 1}
    lanes = assign(held, wanted)
    assert set(lanes) == wanted and len(set(lanes.values())) == len(wanted)
    assert max(lanes.values()) < 2 * len(wanted)
    for key in wanted & set(held):
        assert lanes[key] == held[key] or held[key] >= 2 * len(wanted)
