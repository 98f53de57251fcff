"""In which order is learned: by content and seed alone, so that what is not there leaves no trace."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from gpu_workers.train.learn.samples import Text

Item = TypeVar("Item")


def key(text: Text) -> str:
    return hashlib.sha256(repr(text.ids).encode()).hexdigest()


def endlessly(keys: Sequence[str], seed: int) -> Iterator[int]:
    """Epoch after epoch, each in a new order."""
    epoch = 0
    while keys:
        yield from in_order(keys, seed, epoch)
        epoch += 1


def in_order(keys: Sequence[str], seed: int, epoch: int) -> list[int]:
    drawn = [hashlib.sha256(f"{seed}\0{epoch}\0{key}".encode()).digest() for key in keys]
    return sorted(range(len(keys)), key=lambda index: (drawn[index], keys[index]))


def in_parts(drawn: Iterator[Item], steps: int, batch: int, part: int) -> Iterator[list[list[Item]]]:
    for _ in range(steps):
        whole = list(islice(drawn, batch))
        yield [whole[first : first + part] for first in range(0, len(whole), part)]
