"""Texts that begin alike go through the model once, and what is learned from them is what each alone would teach."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec
import pytest
import torch

from gpu_workers.train.learn.loop import answer_loss, train
from gpu_workers.train.learn.methods import METHODS
from gpu_workers.train.learn.packed import ATTENTION, attending, pack
from gpu_workers.train.learn.samples import Padded, Text, batches
from processors.training.settings import TrainSettings
from tests.support.models import VOCABULARY, tiny

RULE_3 = TrainSettings(rank=4, dropout=0.0, rule=3, steps=2, batch=6, micro_batch=6)


def drawn(seed: int) -> list[Text]:
    """Texts of one opening, some of two, one that another one begins with, and one twice."""
    dice = Random(seed)

    def said(count: int) -> list[int]:
        return [dice.randrange(VOCABULARY) for _ in range(count)]

    opening, further = said(9), said(dice.randrange(1, 5))
    whole = [opening + further + said(4), opening + further + said(7), opening + said(3), said(5)]
    whole += [whole[0] + said(2), list(whole[1])]
    return [Text(ids, [range(len(ids) - 5, len(ids) - 3), range(len(ids) - 1, len(ids))]) for ids in whole]


def gradient(model: Any, part: Padded) -> tuple[float, torch.Tensor]:
    loss = answer_loss(model, part)
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.cat([each.grad.flatten() for each in model.parameters() if each.requires_grad])
    model.zero_grad()
    return float(loss.detach()), found


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("seed", range(3))
def test_packed_texts_teach_what_each_alone_does(family: str, seed: int) -> None:
    model: Any = METHODS["lora"](tiny(family), RULE_3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    ((part,), *_) = batches(drawn(seed), RULE_3, pad=0)
    loss, alone = gradient(model, part)
    with attending(model, RULE_3):
        shared_loss, shared = gradient(model, part)
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    assert (shared - alone).norm() < 1e-5 * alone.norm()


def test_what_texts_share_is_read_once() -> None:
    texts = drawn(0)
    ((part,), *_) = batches(texts, RULE_3, pad=0)
    beginnings = {tuple(text.ids[:end]) for text in texts for end in range(1, len(text.ids) + 1)}
    assert len(pack(part).ids) == len(beginnings) < sum(len(text.ids) for text in texts)


def test_an_older_rule_and_an_activated_adapter_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def bytes_of(settings: TrainSettings) -> list[torch.Tensor]:
        model: Any = METHODS["lora"](copy.deepcopy(base), settings)
        list(train(model, batches(drawn(1), settings, pad=0), settings))
        assert model.get_base_model().config._attn_implementation != ATTENTION
        return [each.detach() for each in model.parameters() if each.requires_grad]

    base = tiny("llama")
    older = msgspec.structs.replace(RULE_3, rule=2)
    activated = msgspec.structs.replace(RULE_3, activation="generation-prompt")
    lines, one_by_one, packed = bytes_of(older), bytes_of(activated), bytes_of(RULE_3)
    assert all(map(torch.equal, lines, one_by_one))
    assert not all(map(torch.equal, lines, packed))
