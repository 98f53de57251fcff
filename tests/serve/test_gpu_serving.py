"""On a GPU: a mixed batch says what PEFT says row by row, and a step waits for the card once."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterable

import pytest
import torch

from gpu_workers.adapters.weights import read_adapter
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine, LoraRow, Said
from gpu_workers.serve.schedule.rows import Limits
from tests.support.models import SHAPES, VOCABULARY, Zoo

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*rank_pattern.*:UserWarning")]
NEW = 24


def rows_of(zoo: Zoo, names: Iterable[str | None]) -> list[LoraRow]:
    dice = random.Random(4)
    weights = {name: read_adapter(folder) for name, folder in zoo.folders.items()}
    prompts = [[dice.randrange(VOCABULARY) for _ in range(dice.choice([1, 7, 20, 41]))] for _ in range(32)]
    return [
        LoraRow(i, prompt, weights[name] if name else None, NEW)
        for i, (name, prompt) in enumerate(zip(names, prompts, strict=False))
    ]


def engine_on_the_card(zoo: Zoo) -> Engine:
    return Engine(Decoder(copy.deepcopy(zoo.base).to("cuda")), frozenset(), Limits())


def test_a_mixed_batch_on_the_card_says_what_peft_says(zoo: Zoo) -> None:
    names = [None, *SHAPES, None, *reversed(SHAPES)]
    rows, said = rows_of(zoo, names), dict[int, list[int]]()
    engine = engine_on_the_card(zoo)
    for row in rows:
        engine.submit(row)
    while engine.busy():
        for each in engine.step():
            assert isinstance(each, Said), each
            said.setdefault(each.ticket, []).extend(each.tokens)
    for name, row in zip(names, rows, strict=False):
        assert said[row.ticket] == zoo.greedy(name, row.prompt, NEW), name


def test_a_step_waits_for_the_card_once(zoo: Zoo) -> None:
    """When its tokens are read: all else of it is on its way by then."""
    engine = engine_on_the_card(zoo)
    for row in rows_of(zoo, [None, *SHAPES]):
        engine.submit(row)
    for _ in range(4):
        engine.step()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            engine.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(waits) <= 1, [str(each.message) for each in waits]
