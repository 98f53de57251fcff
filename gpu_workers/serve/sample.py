"""The next token of each row: the likeliest, or drawn from the row's own dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_workers.serve.schedule import Row

# Knuth's multiplier spreads neighbouring seeds; one die per (seed, place) needs no state between steps.
_SPREAD = 6_364_136_223_846_793_005


def sample(rows: Sequence[Row[Any]], logits: Tensor) -> list[int]:
    """Depends on a row's own logits, seed and place only, never on who else is in the batch."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for i, row in enumerate(rows):
        if row.temperature > 0:
            tokens[i] = _drawn(row, logits[i].float().cpu())
    return tokens


def _drawn(row: Row[Any], logits: Tensor) -> int:
    chances, order = torch.softmax(logits / row.temperature, -1).sort(descending=True, stable=True)
    if row.top_p < 1.0:
        chances[chances.cumsum(0) - chances >= row.top_p] = 0.0
    dice = torch.Generator().manual_seed((row.seed * _SPREAD + len(row.said)) % (1 << 63))
    return int(order[torch.multinomial(chances, 1, generator=dice)])
