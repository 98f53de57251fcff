"""Rows become texts, texts become batches, in an order that the seed decides."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from gpu_workers.bases.chat import Chat, Sample
from gpu_workers.errors import DatasetRefused
from processors.dataset.turns import Example
from processors.training.settings import TrainSettings


class Text(NamedTuple):
    """Token ids, and where answers stand in them."""

    ids: list[int]
    answers: list[range]


class Padded(NamedTuple):
    """Right-padded ids, and where the answers' tokens stand."""

    ids: Tensor
    answers: Tensor


Batch = list[Padded]
"""What one step learns from: texts of like length in each part, so that little is padded."""


def texts(chat: Chat, rows: Iterable[Example], max_tokens: int) -> list[Text]:
    """Answers of one record share a text where one's prompt goes on from another: nothing is read twice."""
    found: list[Text] = []
    for _, same in groupby(rows, key=lambda row: (row.topic, row.partition, row.offset)):
        last = Text([], [])
        for row in same:
            prompt, answer = to_sample(chat, row, max_tokens)
            goes_on = prompt[: len(last.ids)] == last.ids
            earlier = last.answers if goes_on else []
            if earlier:
                found.pop()
            whole = prompt + answer
            last = Text(whole, [*earlier, range(len(prompt), len(whole))])
            found.append(last)
    return found


def to_sample(chat: Chat, example: Example, max_tokens: int) -> Sample:
    """The example as the model will see it in service. Raises rather than cut anything off."""
    sample = chat.sample((*example.prompt, example.answer))
    length = _tokens(sample)
    if length > max_tokens:
        raise DatasetRefused(
            f"{example.topic}/{example.partition}/{example.offset} turn {example.turn}: {length} tokens, "
            f"the run allows {max_tokens}. Raise max_tokens or leave the record out of the ranges."
        )
    return sample


def fits(chat: Chat, example: Example, max_tokens: int) -> bool:
    return _tokens(chat.sample((*example.prompt, example.answer))) <= max_tokens


def _tokens(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.answer)


def batches(texts: Sequence[Text], settings: TrainSettings, pad: int) -> Iterator[Batch]:
    """As many as there are steps."""
    order = _order(len(texts), settings.steps * settings.batch, Random(settings.seed))  # noqa: S311 - no secret
    for start in range(0, len(order), settings.batch):
        drawn = sorted((texts[index] for index in order[start : start + settings.batch]), key=_length)
        parts = range(0, len(drawn), settings.micro_batch)
        yield [_padded(drawn[first : first + settings.micro_batch], pad) for first in parts]


def _order(texts: int, wanted: int, random: Random) -> list[int]:
    """Epoch after epoch, each in a new order."""
    order: list[int] = []
    while len(order) < wanted:
        order += random.sample(range(texts), texts)
    return order[:wanted]


def _length(text: Text) -> int:
    return len(text.ids)


def _padded(texts: Sequence[Text], pad: int) -> Padded:
    longest = max(map(_length, texts))
    ids = torch.full((len(texts), longest), pad)
    answers = torch.zeros((len(texts), longest), dtype=torch.bool)
    for line, text in enumerate(texts):
        ids[line, : len(text.ids)] = torch.tensor(text.ids)
        for answer in text.answers:
            answers[line, answer.start : answer.stop] = True
    return Padded(ids, answers)
