"""Rows become texts, texts become batches, in an order that the seed decides."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain, count, groupby, islice
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from gpu_workers.bases.chat import Chat, Sample
from gpu_workers.errors import DatasetRefused
from processors.dataset.lessons import Row, conversation_of
from processors.dataset.turns import Example
from processors.training.settings import Tools, TrainSettings


class Text(NamedTuple):
    """Token ids, and where answers stand in them."""

    ids: list[int]
    answers: list[range]
    story: str = ""
    """Rule 3: what it is, whatever else is learned from. Empty: its place among the others is what it is known by."""


class Padded(NamedTuple):
    """Right-padded ids, and where the answers' tokens stand."""

    ids: Tensor
    answers: Tensor


Batch = list[Padded]
"""What one step learns from: texts of like length in each part, so that little is padded."""


def texts(chat: Chat, rows: Iterable[Row], max_tokens: int, tools: Tools = "closed-book") -> list[Text]:
    """One answer of each row, good or bad: which rows it is learned from the objective says. Answers of one story
    share a text where one's prompt goes on from another: nothing is read twice.
    """
    found: list[Text] = []
    for _, same in groupby(rows, key=conversation_of):
        last = Text([], [])
        for row in same:
            prompt, answer = to_sample(chat, row, max_tokens, tools)
            goes_on = prompt[: len(last.ids)] == last.ids
            earlier = last.answers if goes_on else []
            if earlier:
                found.pop()
            whole = prompt + answer
            last = Text(whole, [*earlier, range(len(prompt), len(whole))], _name(row))
            found.append(last)
    return found


def alone(chat: Chat, row: Row, max_tokens: int, tools: Tools = "closed-book") -> Text:
    """One answer, right or wrong, as a text of its own."""
    prompt, answer = to_sample(chat, row, max_tokens, tools)
    return Text(prompt + answer, [range(len(prompt), len(prompt) + len(answer))], _name(row))


def content(text: Text) -> str:
    """All that is learned of it; who told it is no part of that."""
    return sha256(repr((text.ids, text.answers)).encode()).hexdigest()


def _name(row: Row) -> str:
    return "" if isinstance(row, Example) else row.story


def to_sample(chat: Chat, row: Row, max_tokens: int, tools: Tools = "closed-book") -> Sample:
    """The row as the model will see it in service. Raises rather than cut anything off."""
    sample = _sample(chat, row, tools)
    length = _tokens(sample)
    if length > max_tokens:
        where = f"{row.topic}/{row.partition}/{row.offset}" if isinstance(row, Example) else f"story {row.story}"
        raise DatasetRefused(
            f"{where} turn {row.turn}: {length} tokens, "
            f"the run allows {max_tokens}. Raise max_tokens or leave the record out of the ranges."
        )
    return sample


def fits(chat: Chat, row: Row, max_tokens: int, tools: Tools = "closed-book") -> bool:
    return _tokens(_sample(chat, row, tools)) <= max_tokens


def _sample(chat: Chat, row: Row, tools: Tools) -> Sample:
    offered = row.tools if tools == "in-prompt" and not isinstance(row, Example) else None
    return chat.sample((*row.prompt, row.answer), offered)


def _tokens(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.answer)


def batches(texts: Sequence[Text], settings: TrainSettings, pad: int) -> Iterator[Batch]:
    """As many as there are steps."""
    if not texts:
        raise DatasetRefused(
            "no answer to learn from: each is held out or was called wrong. Correct some, or add more."
        )
    order = _order(texts, settings.steps * settings.batch, settings.seed)
    for start in range(0, len(order), settings.batch):
        drawn = sorted((texts[index] for index in order[start : start + settings.batch]), key=_length)
        parts = range(0, len(drawn), settings.micro_batch)
        yield [padded(drawn[first : first + settings.micro_batch], pad) for first in parts]


def _order(texts: Sequence[Text], wanted: int, seed: int) -> list[int]:
    """Epoch after epoch, each in a new order."""
    epochs = _drawn_by_content(texts, seed) if texts[0].story else _drawn_by_place(len(texts), seed)
    return list(islice(chain.from_iterable(epochs), wanted))


def _drawn_by_content(texts: Sequence[Text], seed: int) -> Iterator[list[int]]:
    """A text that is not there any more, or not yet, moves no two others past each other."""
    nth = [n for _, same in groupby(text.story for text in texts) for n, _ in enumerate(same)]
    for epoch in count():
        drawn = [
            sha256(f"{seed}/{epoch}/{text.story}/{n}".encode()).digest() for text, n in zip(texts, nth, strict=True)
        ]
        yield sorted(range(len(texts)), key=drawn.__getitem__)


def _drawn_by_place(texts: int, seed: int) -> Iterator[list[int]]:
    """As by rules 1 and 2, for ever."""
    random = Random(seed)  # noqa: S311 - no secret
    while True:
        yield random.sample(range(texts), texts)


def _length(text: Text) -> int:
    return len(text.ids)


def padded(texts: Sequence[Text], pad: int) -> Padded:
    longest = max(map(_length, texts))
    ids = torch.full((len(texts), longest), pad)
    answers = torch.zeros((len(texts), longest), dtype=torch.bool)
    for line, text in enumerate(texts):
        ids[line, : len(text.ids)] = torch.tensor(text.ids)
        for answer in text.answers:
            answers[line, answer.start : answer.stop] = True
    return Padded(ids, answers)
