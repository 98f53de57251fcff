"""Texts that begin alike go through the model once, and what is learned from them is what each alone would teach."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec
import pytest
import torch

from gpu_workers.train.learn.loop import Loop
from gpu_workers.train.learn.loss import answer_loss
from gpu_workers.train.learn.methods import METHODS, Adapted
from gpu_workers.train.learn.packed import ATTENTION, attending, pack
from gpu_workers.train.learn.samples import Padded, Text, batches
from gpu_workers.train.learn.supervised import Supervised
from processors.training.settings import TrainSettings
from tests.support.models import VOCABULARY, tiny

TRIGGER = 0
RULE_3 = TrainSettings(rank=4, dropout=0.0, rule=3, steps=2, batch=6, micro_batch=6)


def drawn(seed: int, one_answer: bool = False) -> list[Text]:
    """Texts of one opening, some of two, one that another one begins with, and one twice."""
    dice = Random(seed)

    def said(count: int) -> list[int]:
        return [dice.randrange(VOCABULARY) for _ in range(count)]

    opening, further = said(9), said(dice.randrange(1, 5))
    whole = [opening + further + said(4), opening + further + said(7), opening + said(3), said(5)]
    whole += [whole[0] + said(2), list(whole[1])]
    first = [] if one_answer else [5]
    return [Text(ids, [range(len(ids) - at, len(ids) - at + 1) for at in (*first, 1)]) for ids in whole]


def gradient(adapted: Adapted, part: Padded) -> tuple[float, torch.Tensor]:
    loss = answer_loss(adapted, part)
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.cat([each.grad.flatten() for each in adapted.model.parameters() if each.grad is not None])
    adapted.model.zero_grad()
    return float(loss.detach()), found


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("trigger", [(), (TRIGGER,)], ids=["always", "activated"])
@pytest.mark.parametrize("seed", range(3))
def test_packed_texts_teach_what_each_alone_does(family: str, trigger: tuple[int, ...], seed: int) -> None:
    adapted = METHODS["lora"](tiny(family), RULE_3, RULE_3.steps, trigger)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    ((part,), *_) = batches(drawn(seed, bool(trigger)), RULE_3, pad=0)
    loss, alone = gradient(adapted, part)
    with attending(adapted.model, RULE_3):
        shared_loss, shared = gradient(adapted, part)
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    assert (shared - alone).norm() < 1e-5 * alone.norm()


def test_what_texts_share_is_read_once() -> None:
    texts = drawn(0)
    ((part,), *_) = batches(texts, RULE_3, pad=0)
    beginnings = {tuple(text.ids[:end]) for text in texts for end in range(1, len(text.ids) + 1)}
    assert len(pack(part).ids) == len(beginnings) < sum(len(text.ids) for text in texts)


def test_an_older_rule_reads_line_by_line() -> None:
    def bytes_of(settings: TrainSettings) -> list[torch.Tensor]:
        adapted = METHODS["lora"](copy.deepcopy(base), settings, settings.steps)
        list(Loop(adapted, Supervised(drawn(1), [], settings, pad=0), settings, settings.steps).run())
        causal: Any = adapted.model.get_base_model()
        assert causal.config._attn_implementation != ATTENTION
        return [each.detach() for each in adapted.model.parameters() if each.requires_grad]

    base = tiny("llama")
    older, packed = bytes_of(msgspec.structs.replace(RULE_3, rule=2)), bytes_of(RULE_3)
    assert not all(map(torch.equal, older, packed))
    assert all(torch.allclose(one, other, atol=1e-2) for one, other in zip(older, packed, strict=True))
