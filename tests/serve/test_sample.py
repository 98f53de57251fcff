"""Draws: by the model's chances, by nothing else in the batch, and as narrow as was asked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpu_workers.serve.engine.sample import Drawn, _gumbel, _narrowed, sample
from gpu_workers.serve.schedule.rows import EngineRow

WIDTH = 50


def row(seed: int = 0, place: int = 0, **more: Any) -> EngineRow[Any]:
    return EngineRow(0, [1], None, 99, seed=seed, said=[0] * place, **({"temperature": 1.0} | more))


def drawn(rows: list[EngineRow[Any]], logits: Tensor, allowed: Tensor | None = None) -> list[Drawn]:
    return sample(rows, logits, logits if allowed is None else allowed, torch.ones(len(rows), dtype=torch.bool))[0]


def some_logits(rows: int = 1, seed: int = 3) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_chances(temperature: float) -> None:
    logits, count = some_logits(), 20_000
    rows = [row(seed, place, temperature=temperature) for seed in range(200) for place in range(count // 200)]
    said = torch.tensor([each.token for each in drawn(rows, logits.expand(count, -1))])
    expected = (logits[0] / temperature).softmax(-1) * count
    likely = expected > 5
    off = (torch.bincount(said, minlength=WIDTH) - expected)[likely]
    assert (off.square() / expected[likely]).sum() < 2 * likely.sum(), "chi squared, far above what chance gives"


def test_who_else_is_in_the_batch_and_where_changes_no_draw() -> None:
    logits = some_logits(6)
    rows = [
        row(seed, seed % 3, temperature=0.5 + 0.3 * seed, top_p=1 - 0.1 * seed, top_k=seed * 7) for seed in range(6)
    ]
    together = [each.token for each in drawn(rows, logits)]
    alone = [drawn([one], logits[i : i + 1])[0].token for i, one in enumerate(rows)]
    backwards = [each.token for each in drawn(rows[::-1], logits.flip(0))][::-1]
    assert together == alone == backwards


def test_seeds_and_places_are_dice_of_their_own() -> None:
    logits = some_logits().expand(400, -1)
    by_seed = [each.token for each in drawn([row(seed) for seed in range(400)], logits)]
    by_place = [each.token for each in drawn([row(7, place) for place in range(400)], logits)]
    again = [each.token for each in drawn([row(seed) for seed in range(400)], logits)]
    assert by_seed == again and by_seed != by_place
    assert sum(one == next_ for one, next_ in pairwise(by_seed)) < 100
    for seed in (-(2**63), 2**63 - 1, 2**70, -1):
        assert 0 <= drawn([row(seed)], logits[:1])[0].token < WIDTH


@pytest.mark.parametrize(
    ("more", "kept"), [({"top_k": 1}, 1), ({"top_k": 4}, 4), ({"top_p": 1e-9}, 1), ({"top_k": 99}, WIDTH)]
)
def test_no_draw_leaves_what_is_narrowed_to(more: dict[str, Any], kept: int) -> None:
    logits = some_logits()
    said = {each.token for each in drawn([row(seed, **more) for seed in range(3_000)], logits.expand(3_000, -1))}
    assert said <= set(logits[0].topk(kept).indices.tolist())
    assert len(said) > kept // 2


@pytest.mark.parametrize("top_p", [0.3, 0.8])
def test_top_p_is_the_fewest_likeliest_that_hold_it(top_p: float) -> None:
    logits = some_logits()
    chances, order = logits[0].softmax(-1).sort(descending=True)
    nucleus = order[: int((chances.cumsum(0) < top_p).sum()) + 1].tolist()
    said = {each.token for each in drawn([row(seed, top_p=top_p) for seed in range(3_000)], logits.expand(3_000, -1))}
    assert said == set(nucleus)


def test_min_p_is_a_share_of_the_likeliest() -> None:
    logits = some_logits()
    chances = logits[0].softmax(-1)
    said = {each.token for each in drawn([row(seed, min_p=0.3) for seed in range(3_000)], logits.expand(3_000, -1))}
    assert said == set((chances >= 0.3 * chances.max()).nonzero().flatten().tolist())


def test_who_narrows_nothing_loses_nothing_beside_one_who_does() -> None:
    """A long tail that float32 loses beside 1."""
    chances = torch.full((2, 50_000), 1e-9)
    chances[:, 0] = 1.0
    kept = _narrowed([row(), row(top_p=0.5)], chances / chances.sum(-1, keepdim=True))
    assert kept.sum(-1).tolist() == [50_000, 1]


def test_top_p_is_a_share_of_what_top_k_leaves() -> None:
    chances = torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1], [0.4, 0.3, 0.2, 0.06, 0.04]])
    kept = _narrowed([row(top_k=2, top_p=0.5), row(top_k=2, top_p=0.55)], chances)
    assert kept.tolist() == [[True, False, False, False, False], [True, False, False, False, False]]
    kept = _narrowed([row(top_k=2, top_p=0.6), row(top_k=2, top_p=0.6)], chances)
    assert kept.tolist() == [[True, True, True, False, False], [True, True, False, False, False]], "ties stay together"


@pytest.mark.parametrize(
    "more", [{"top_k": 5, "top_p": 0.7}, {"top_p": 0.9, "min_p": 0.1}, {"top_k": 9, "top_p": 0.4, "min_p": 0.2}]
)
def test_what_is_kept_is_what_transformers_keeps(more: dict[str, Any]) -> None:
    logits = some_logits(20)
    theirs = logits
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        theirs = warper(more[name])(torch.zeros(1), theirs) if name in more else theirs
    assert torch.equal(_narrowed([row(**more)] * 20, logits.softmax(-1)), theirs > float("-inf"))


def test_no_die_makes_a_token_certain() -> None:
    noise = _gumbel(torch.tensor([-1, 0, 1, 2**63 - 1, -(2**63)]))
    assert noise.isfinite().all() and noise.abs().max() < 40


def test_chances_are_the_models_own_before_anything_narrows_them() -> None:
    logits = some_logits(3)
    barred = logits.clone()
    barred[:, logits[0].argmax()] = float("-inf")
    rows = [row(1, logprobs=3, temperature=0.0), row(2, logprobs=0, temperature=0.7, top_k=2), row(3)]
    told = drawn(rows, logits, barred)
    logs = logits.log_softmax(-1)
    assert told[0].said == pytest.approx(float(logs[0, told[0].token])) and told[0].token != int(logits[0].argmax())
    assert [token for token, _ in told[0].likeliest] == logs[0].topk(3).indices.tolist()
    assert told[1].said == pytest.approx(float(logs[1, told[1].token])) and told[1].likeliest == ()
    assert told[2] == Drawn(told[2].token, True)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_told_of_their_row_alone(broken: float) -> None:
    logits = some_logits(3)
    logits[1, 7] = broken
    assert [each.finite for each in drawn([row(temperature=0.0)] * 3, logits)] == [True, False, True]
