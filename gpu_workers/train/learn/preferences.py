"""Learning from what people said of answers: DPO from corrections (2305.18290), KTO from thumbs (2402.01306)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gpu_workers.errors import NoPairs, OneSided
from gpu_workers.train.learn.draw import endlessly, in_order, in_parts, key
from gpu_workers.train.learn.loss import answer_chances, tokens_in
from gpu_workers.train.learn.methods import Adapted
from gpu_workers.train.learn.samples import Padded, Text, padded
from processors.training.settings import TrainSettings


class Pair(NamedTuple):
    """Two answers to one prompt."""

    chosen: Text
    rejected: Text


class Judged(NamedTuple):
    text: Text
    good: bool
    other: Text
    """This prompt with the answer of another text, mostly one to another prompt: how far the adapter is from the base
    where nothing fits."""


class JudgedPart(NamedTuple):
    texts: Padded
    others: Padded
    good: Tensor


class Dpo:
    """The base model is the reference: the same forward pass with the adapter off."""

    def __init__(self, pairs: Sequence[Pair], held_out: Sequence[Pair], settings: TrainSettings, pad: int) -> None:
        if not pairs:
            raise NoPairs(
                "no answer of the dataset was corrected, and DPO learns from corrections. "
                "Give feedback with a final text, or train with objective=supervised or kto."
            )
        self._pairs, self._held_out, self._settings, self._pad = pairs, held_out, settings, pad
        self.texts = len(pairs)

    def batches(self, steps: int) -> Iterator[list[Padded]]:
        order = endlessly([key(pair.chosen) + key(pair.rejected) for pair in self._pairs], self._settings.seed)
        drawn = (self._pairs[index] for index in order)
        for parts in in_parts(drawn, steps, self._settings.batch, self._settings.micro_batch):
            yield [self._part(part) for part in parts]

    def held_out(self) -> list[Padded]:
        size = self._settings.micro_batch
        return [self._part(self._held_out[first : first + size]) for first in range(0, len(self._held_out), size)]

    def weight(self, batch: Sequence[Padded]) -> int:
        return sum(len(part.ids) for part in batch) // 2

    def begin(self, adapted: Adapted, batch: Sequence[Padded]) -> None: ...

    def tokens(self, part: Padded) -> int:
        return tokens_in(part)

    def loss(self, adapted: Adapted, part: Padded) -> Tensor:
        chosen, rejected = _gains(adapted, part).chunk(2)
        return -logsigmoid(self._settings.beta * (chosen - rejected)).sum()

    def _part(self, pairs: Sequence[Pair]) -> Padded:
        """All that was chosen, then all that was rejected."""
        return padded([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], self._pad)


class Kto:
    """Good and bad count alike, however many there are of each."""

    def __init__(self, judged: Sequence[Judged], held_out: Sequence[Judged], settings: TrainSettings, pad: int) -> None:
        good = sum(each.good for each in judged)
        bad = len(judged) - good
        if not good or not bad:
            raise OneSided(
                f"the dataset holds {good} answers that were called good and {bad} that were called bad; KTO needs "
                "both. Give feedback on more of them, or train with objective=supervised."
            )
        self._apart = 0.0
        self._weights = max(1.0, bad / good), max(1.0, good / bad)
        self._judged, self._held_out, self._settings, self._pad = judged, held_out, settings, pad
        self.texts = len(judged)

    def batches(self, steps: int) -> Iterator[list[JudgedPart]]:
        order = endlessly([f"{key(each.text)}{each.good}" for each in self._judged], self._settings.seed)
        drawn = (self._judged[index] for index in order)
        for parts in in_parts(drawn, steps, self._settings.batch, self._settings.micro_batch):
            yield [self._part(part) for part in parts]

    def held_out(self) -> list[JudgedPart]:
        size = self._settings.micro_batch
        return [self._part(self._held_out[first : first + size]) for first in range(0, len(self._held_out), size)]

    def weight(self, batch: Sequence[JudgedPart]) -> int:
        return sum(len(part.good) for part in batch)

    @torch.no_grad()
    def begin(self, adapted: Adapted, batch: Sequence[JudgedPart]) -> None:
        """How far the adapter went, over the whole batch: how many texts are in memory at once changes nothing."""
        gains = sum(float(_gains(adapted, part.others).sum()) for part in batch)
        self._apart = max(0.0, gains / self.weight(batch))

    def tokens(self, part: JudgedPart) -> int:
        return tokens_in(part.texts) + tokens_in(part.others)

    def loss(self, adapted: Adapted, part: JudgedPart) -> Tensor:
        gains = _gains(adapted, part.texts)
        good = part.good.to(gains.device)
        above = torch.where(good, gains - self._apart, self._apart - gains)
        desirable, undesirable = self._weights
        weights = torch.where(good, desirable, undesirable)
        return (weights * (1 - torch.sigmoid(self._settings.beta * above))).sum()

    def _part(self, judged: Sequence[Judged]) -> JudgedPart:
        return JudgedPart(
            padded([each.text for each in judged], self._pad),
            padded([each.other for each in judged], self._pad),
            torch.tensor([each.good for each in judged]),
        )


def judged(texts: Sequence[tuple[Text, bool]], seed: int) -> list[Judged]:
    """Each with the answer of the one after it, in an order of content and seed."""
    order = in_order([key(text) for text, _ in texts], seed, 0)
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [Judged(text, good, _with_answer(text, texts[after[place]][0])) for place, (text, good) in enumerate(texts)]


def _with_answer(text: Text, other: Text) -> Text:
    """The prompt of one, the last answer of another."""
    prompt = text.ids[: text.answers[-1].start]
    answer = other.ids[other.answers[-1].start : other.answers[-1].stop]
    return text._replace(ids=prompt + answer, answers=[range(len(prompt), len(prompt) + len(answer))])


def _gains(adapted: Adapted, part: Padded) -> Tensor:
    """By how much the adapter makes each answer likelier than the base model does."""
    with torch.no_grad(), adapted.model.disable_adapter():
        before = answer_chances(adapted, part)
    return answer_chances(adapted, part) - before
