"""Rows become samples, samples become batches, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from gpu_workers.chat import Chat, Sample
from gpu_workers.errors import DatasetRefused
from processors.dataset import Example
from processors.train_settings import TrainSettings


class Part(NamedTuple):
    """Right-padded ids, and where the answers' tokens stand."""

    ids: Tensor
    answers: Tensor


Batch = list[Part]
"""What one step learns from: samples of like length in each part, so that little is padded."""


def to_sample(chat: Chat, example: Example, max_tokens: int) -> Sample:
    """The example as the model will see it in service. Raises rather than cut anything off."""
    sample = chat.sample((*example.prompt, example.answer))
    length = _length(sample)
    if length > max_tokens:
        raise DatasetRefused(
            f"{example.topic}/{example.partition}/{example.offset} turn {example.turn}: {length} tokens, "
            f"the run allows {max_tokens}. Raise max_tokens or leave the record out of the ranges."
        )
    return sample


def batches(samples: Sequence[Sample], settings: TrainSettings, pad: int) -> Iterator[Batch]:
    """As many as there are steps."""
    order = _order(len(samples), settings.steps * settings.batch, Random(settings.seed))  # noqa: S311 - no secret
    for start in range(0, len(order), settings.batch):
        drawn = sorted((samples[index] for index in order[start : start + settings.batch]), key=_length)
        parts = range(0, len(drawn), settings.micro_batch)
        yield [_padded(drawn[first : first + settings.micro_batch], pad) for first in parts]


def _order(samples: int, wanted: int, random: Random) -> list[int]:
    """Epoch after epoch, each in a new order."""
    order: list[int] = []
    while len(order) < wanted:
        order += random.sample(range(samples), samples)
    return order[:wanted]


def _length(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.answer)


def _padded(samples: Sequence[Sample], pad: int) -> Part:
    longest = max(map(_length, samples))
    ids = torch.full((len(samples), longest), pad)
    answers = torch.zeros((len(samples), longest), dtype=torch.bool)
    for line, (prompt, answer) in enumerate(samples):
        length = len(prompt) + len(answer)
        ids[line, :length] = torch.tensor(prompt + answer)
        answers[line, len(prompt) : length] = True
    return Part(ids, answers)
