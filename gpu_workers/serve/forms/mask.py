"""Forms at work in a batch: what a row's form does not allow has no chance there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gpu_workers.refused import Refused
from gpu_workers.serve.forms.form import Words


class Holding(Protocol):
    def allowed(self) -> Words: ...


class Masked(NamedTuple):
    logits: Tensor
    """A copy where any row is held to a form; what was given stays as it was."""
    fell: dict[int, Refused]
    """Rows whose form cannot be told: they end, and the others go on."""


def mask_logits(logits: Tensor, rows: Sequence[Holding | None]) -> Masked:
    """`logits` of [rows, vocabulary]. Depends on each row's own form only."""
    fell: dict[int, Refused] = {}
    allowed: dict[int, Words] = {}
    for place, form in enumerate(rows):
        if form is None:
            continue
        try:
            allowed[place] = form.allowed()
        except Refused as error:
            fell[place] = error
    if not allowed:
        return Masked(logits, fell)
    return Masked(torch.where(_barred(allowed, logits), -torch.inf, logits), fell)


def _barred(allowed: dict[int, Words], logits: Tensor) -> Tensor:
    """True where a token may not come. The bits travel packed, and nothing waits for the device."""
    count, vocabulary = logits.shape
    packed = np.zeros((count, -(-vocabulary // 8)), np.uint8)
    for place, words in allowed.items():
        bits = ~words.view(np.uint8)[: packed.shape[1]]
        packed[place] = 255  # tokens beyond what the form knows are no words of it
        packed[place, : len(bits)] = bits
    if logits.device.type == "cpu":
        bits = np.unpackbits(packed, axis=1, count=vocabulary, bitorder="little")
        return torch.from_numpy(bits).view(torch.bool)
    far = torch.from_numpy(packed).pin_memory().to(logits.device, non_blocking=True)
    places = torch.arange(8, device=logits.device, dtype=torch.uint8)
    return (far[:, :, None] >> places & 1).view(count, -1)[:, :vocabulary].bool()
