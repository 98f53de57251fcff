"""The stone: k tokens a row over KV that is already there, in pages. However a prompt is cut, transformers agrees."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_workers.adapters.weights import read_adapter
from gpu_workers.serve.engine.attention import Attention, RowSpan
from gpu_workers.serve.engine.decoder import Computed, Decoder, Tokens
from gpu_workers.serve.engine.kv import KVCache
from gpu_workers.serve.engine.lanes import NOBODY, Lanes, Plan, plan
from tests.support.models import SHAPES, VOCABULARY, Zoo, with_adapter

Parts = list[tuple[list[int], int, int]]
"""(pages, first, last) of each row: these of its tokens are read."""


def step(decoder: Decoder, cache: KVCache, rows: list[list[int]], parts: Parts, step_plan: Plan = NOBODY) -> Computed:
    """One step of the decoder, laid out by hand: `parts[i]` is what is read of `rows[i]`."""
    ids, positions, cells, spans = list[int](), list[int](), list[int](), list[RowSpan]()
    for row, (pages, first, last) in zip(rows, parts, strict=True):
        spans.append(RowSpan(len(ids), first, last - first, pages[: -(-last // cache.size)]))
        ids += row[first:last]
        positions += range(first, last)
        cells += [pages[place // cache.size] * cache.size + place % cache.size for place in range(first, last)]
    asks = torch.tensor([span.first + span.length - 1 for span in spans])
    tokens = Tokens(torch.tensor(ids), torch.tensor(positions), torch.tensor(cells), spans, asks, step_plan)
    return decoder.forward(tokens, cache)


def cut(length: int, dice: random.Random) -> list[tuple[int, int]]:
    places = sorted({0, length, *(dice.randrange(1, length) for _ in range(dice.randrange(4)) if length > 1)})
    return list(itertools.pairwise(places))


def truth(model: Any, row: list[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([row])).logits[0].float()


@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_any_prompts_in_any_pages_is_what_transformers_computes(zoo: Zoo, seed: int) -> None:
    dice = random.Random(seed)
    size = dice.choice([1, 3, 16])
    decoder = Decoder(zoo.base)
    rows = [[dice.randrange(VOCABULARY) for _ in range(dice.choice([1, 2, 5, 17, 33, 90]))] for _ in range(7)]
    expected = [truth(zoo.base, row) for row in rows]
    free = list(range(1, 1 + sum(-(-len(row) // size) for row in rows)))
    dice.shuffle(free)
    cache = decoder.cache(len(free) + 1, size)
    for layer in cache.store:
        layer[:, :, 1:] = float("nan")  # what former rows may have left
    cache.clear(free)
    tables = [[free.pop() for _ in range(-(-len(row) // size))] for row in rows]
    todo = [(i, part) for i, row in enumerate(rows) for part in cut(len(row), dice)]
    while todo:
        ready = [each for n, each in enumerate(todo) if not any(i == each[0] for i, _ in todo[:n])]
        taken = dice.sample(ready, dice.randrange(1, len(ready) + 1))
        todo = [each for each in todo if each not in taken]
        seen = step(decoder, cache, [rows[i] for i, _ in taken], [(tables[i], *part) for i, part in taken])
        assert seen.finite.all()
        for (i, (_, last)), logits in zip(taken, seen.logits, strict=True):
            assert (logits - expected[i][last - 1]).abs().max() < 1e-4, (i, last)


def test_adapters_of_all_kinds_read_in_parts_what_they_read_whole(zoo: Zoo) -> None:
    dice = random.Random(9)
    decoder = Decoder(zoo.base)
    lanes = Lanes(decoder.sites, decoder.embedding)
    names = [None, *SHAPES]
    weights = {name: read_adapter(zoo.folders[name]) for name in SHAPES}
    seats = lanes.seat(set(weights.values()))
    places = {name: seats[weights[name]] if name else None for name in names}
    names.sort(key=lambda name: (places[name] is not None, places[name]))
    rows = [[dice.randrange(VOCABULARY) for _ in range(40)] for _ in names]
    cache = decoder.cache(1 + 3 * len(rows), 16)
    cache.clear(range(cache.pages))
    tables = [[1 + 3 * i, 2 + 3 * i, 3 + 3 * i] for i in range(len(rows))]
    for first, last in ((0, 11), (11, 12), (12, 40)):
        laid = plan([places[name] for name in names], [last - first] * len(names))
        seen = step(decoder, cache, rows, [(table, first, last) for table in tables], laid)
    for name, row, logits in zip(names, rows, seen.logits, strict=True):
        model = zoo.base if name is None else with_adapter(zoo.base, zoo.folders[name], {})
        assert (logits - truth(model, row)[-1]).abs().max() < 1e-4, name


def test_two_rows_read_the_pages_that_they_share_and_write_none_of_them(zoo: Zoo) -> None:
    decoder, dice = Decoder(zoo.base), random.Random(2)
    common = [dice.randrange(VOCABULARY) for _ in range(32)]
    rows = [common + [dice.randrange(VOCABULARY) for _ in range(n)] for n in (3, 9)]
    cache = decoder.cache(8, 16)
    cache.clear(range(8))
    step(decoder, cache, [common], [([4, 2], 0, 32)])
    before = [layer[:, :, [4, 2]].clone() for layer in cache.store]
    seen = step(decoder, cache, rows, [([4, 2, 5], 32, 35), ([4, 2, 7], 32, 41)])
    for row, logits in zip(rows, seen.logits, strict=True):
        assert (logits - truth(zoo.base, row)[-1]).abs().max() < 1e-4
    assert all(torch.equal(layer[:, :, [4, 2]], old) for layer, old in zip(cache.store, before, strict=True))


def test_rows_of_all_sizes_are_read_through_one_copy_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many read one prefix."""
    cache = KVCache(2, 2, 8, torch.zeros(1), 70, 4)
    cache.clear(range(70))
    spans = [RowSpan(i, 4 * n - 1, 1, list(range(1, n + 1))) for i, n in enumerate((60, 5, 60, 33, 1, 60, 8, 60))]
    copies: set[int] = set()
    select = torch.index_select

    def watched(side: Tensor, dim: int, index: Tensor, *, out: Tensor) -> Tensor:
        copies.add(out.untyped_storage().data_ptr())
        assert out.nbytes <= side.nbytes
        return select(side, dim, index, out=out)

    monkeypatch.setattr(torch, "index_select", watched)
    attend = Attention(spans, cache, 4, 2)
    for layer in cache.store:
        attend(layer, torch.zeros(8, 4, 8))
    assert len(copies) == 1


def test_a_row_whose_numbers_are_none_is_told_by_itself(zoo: Zoo) -> None:
    decoder = Decoder(zoo.base)
    cache = decoder.cache(4, 16)
    cache.clear(range(4))
    cache.store[0][0, :, 1] = float("nan")
    seen = step(decoder, cache, [[5] * 20, [5] * 5], [([1, 2], 16, 20), ([3], 0, 5)])
    assert seen.finite.tolist() == [False, True]
    assert (seen.logits[1] - truth(zoo.base, [5] * 5)[-1]).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore:.*rank_pattern.*:UserWarning")
def test_a_prompts_beginning_by_the_base_is_the_bases_own_bit_by_bit(zoo: Zoo) -> None:
    """An adapter that is active from a place on: what comes before it is the base's KV, for everybody."""
    decoder, row = Decoder(zoo.base), list(range(3, 40))
    weights = read_adapter(zoo.folders["r8"])
    lanes = Lanes(decoder.sites, decoder.embedding)
    place = lanes.seat({weights})[weights]
    cache = decoder.cache(8, 16)
    cache.clear(range(8))
    step(decoder, cache, [row], [([1, 2, 3], 0, 32)])
    step(decoder, cache, [row], [([4, 5, 6], 0, 32)])
    seen = step(decoder, cache, [row], [([4, 5, 6], 32, 37)], plan([place], [5]))
    for layer in cache.store:
        assert torch.equal(layer[:, :, [1, 2]], layer[:, :, [4, 5]])
    assert (seen.logits[0] - truth(zoo.base, row)[-1]).abs().max() > 1e-2, "else the adapter did nothing"
