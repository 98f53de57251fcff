"""Every row of a mixed batch says exactly what PEFT says with only that row's adapter."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import peft
import pytest
import torch

from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.serve.engine.attention import RowSpan
from gpu_workers.serve.engine.decoder import Decoder, Tokens
from gpu_workers.serve.engine.engine import Engine, LoraRow, Said
from gpu_workers.serve.engine.lanes import Lanes, plan
from gpu_workers.serve.schedule.rows import Limits
from tests.support.models import SHAPES, VOCABULARY, Zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*rank_pattern.*:UserWarning")


def run(engine: Engine, rows: Iterable[LoraRow]) -> dict[int, list[int]]:
    for row in rows:
        engine.submit(row)
    said: dict[int, list[int]] = {}
    while engine.busy():
        for each in engine.step():
            assert isinstance(each, Said), each
            said.setdefault(each.ticket, []).extend(each.tokens)
    return said


def questions(zoo: Zoo, names: Iterable[str | None], seed: int = 0, new: int = 12) -> list[LoraRow]:
    """Prompts of very different lengths, so that padding anywhere would show."""
    dice = random.Random(seed)
    weights: dict[str, LoraWeights] = {name: read_adapter(folder) for name, folder in zoo.folders.items()}
    return [
        LoraRow(i, [dice.randrange(VOCABULARY) for _ in range(dice.choice([1, 3, 7, 20, 41]))],
                weights[name] if name else None, new)
        for i, name in enumerate(names)
    ]  # fmt: skip


def test_a_mixed_batch_equals_peft_row_by_row(zoo: Zoo) -> None:
    names = [None, *SHAPES, None, *reversed(SHAPES), "r8", "r8", "r8", None]
    rows = questions(zoo, names)
    said = run(Engine(Decoder(zoo.base), frozenset(), Limits()), rows)
    for name, row in zip(names, rows, strict=True):
        assert said[row.ticket] == zoo.greedy(name, row.prompt, 12), name


def test_rows_come_and_go_and_every_one_keeps_its_adapter(zoo: Zoo) -> None:
    dice = random.Random(3)
    names = [dice.choice([None, *SHAPES]) for _ in range(40)]
    rows = questions(zoo, names, seed=5)
    for row in rows:
        row.limit = dice.randrange(1, 14)
    said = run(Engine(Decoder(zoo.base), frozenset({5, 9}), Limits(rows=6, pages=24, step=60, chunk=7)), rows)
    for name, row in zip(names, rows, strict=True):
        expected = zoo.greedy(name, row.prompt, row.limit)
        ends = [i for i, token in enumerate(expected) if token in (5, 9)]
        assert said[row.ticket] == expected[: ends[0] + 1 if ends else None], (row.ticket, name)


def test_rows_that_give_way_say_what_they_say_alone(zoo: Zoo) -> None:
    """Three owners, of whom the pages hold one or two rows: each goes back to the line and is computed again."""
    names = [None, "r8", "patterns", "r8", None, "r4-qv"]
    limits = Limits(rows=8, pages=14, step=300, turn=5)

    def rows() -> list[LoraRow]:
        made = questions(zoo, names, seed=2, new=100)
        for row in made:
            row.owner, row.seed, row.temperature = f"c{row.ticket % 3}", row.ticket, 0.9 * (row.ticket % 2)
            row.limit -= 10 * row.ticket
        return made

    stops = frozenset({5, 9})
    together, let_in = told(Engine(Decoder(zoo.base), stops, limits), rows())
    for row in rows():
        assert together[row.ticket] == told(Engine(Decoder(zoo.base), stops, limits), [row])[0][row.ticket]
    for name, row in zip(names, rows(), strict=True):
        if not row.temperature:
            assert together[row.ticket] == zoo.greedy(name, row.prompt, len(together[row.ticket]))
    assert max(let_in.values()) > 2, "else nobody gave way"


def told(engine: Engine, rows: list[LoraRow]) -> tuple[dict[int, list[int]], Counter[int]]:
    """All that is said, and how often each row was let in."""
    let_in: Counter[int] = Counter()
    said: dict[int, list[int]] = {row.ticket: [] for row in rows}
    for row in rows:
        engine.submit(row)
    before: set[LoraRow] = set()
    while engine.busy():
        for each in engine.step():
            assert isinstance(each, Said)
            said[each.ticket] += each.tokens
        now = set(engine._schedule.running)
        let_in.update(row.ticket for row in now - before)
        before = now
    return said, let_in


def test_bfloat16_rows_stay_as_near_to_peft_as_bfloat16_is(zoo: Zoo) -> None:
    """Tokens may part where two are almost as likely; the numbers may not."""
    base: Any = copy.deepcopy(zoo.base).to(torch.bfloat16)
    decoder = Decoder(base)
    lanes, prompt = Lanes(decoder.sites, decoder.embedding), list(range(3, 40))
    for name, folder in zoo.folders.items():
        weights = read_adapter(folder, torch.bfloat16)
        seats = lanes.seat({weights})
        cache, places = decoder.cache(4, 16), torch.arange(len(prompt))
        cache.clear([1, 2, 3])
        step, span = plan([seats[weights]], [len(prompt)]), RowSpan(0, 0, len(prompt), [1, 2, 3])
        tokens = Tokens(torch.tensor(prompt), places, 16 + places, [span], places[-1:], step)
        ours = decoder.forward(tokens, cache).logits[0]
        exact = peft.PeftModel.from_pretrained(copy.deepcopy(zoo.base), folder)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
        with torch.inference_mode():
            truth, rounded = (model(torch.tensor([prompt])).logits[0, -1].float() for model in (exact, theirs))
        assert (ours.float() - truth).norm() < 2 * (rounded - truth).norm() + 1e-3, name
