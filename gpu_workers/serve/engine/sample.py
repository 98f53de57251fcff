"""The next token of each row: the likeliest, or drawn from the row's own dice."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_workers.refused import NotFinite, Refused, RowFailed
from gpu_workers.serve.engine.schedule import EngineRow

# Knuth's multiplier spreads neighbouring seeds; one die per (seed, place) needs no state between steps.
_SPREAD = 6_364_136_223_846_793_005
COLD = 1e-4
"""Below this temperature the likeliest token has all of the chance that numbers can hold."""


def sample(rows: Sequence[EngineRow[Any]], logits: Tensor) -> list[int | Refused]:
    """Depends on a row's own logits, seed and place only, never on who else is in the batch; so does an error."""
    likeliest = logits.argmax(-1).tolist()
    finite = logits.isfinite().all(-1).tolist()
    return [_next(row, *each) for row, *each in zip(rows, logits, likeliest, finite, strict=True)]


def _next(row: EngineRow[Any], logits: Tensor, likeliest: int, finite: bool) -> int | Refused:
    if not finite:
        return NotFinite("the model's numbers are not finite for this prompt and adapter; no token can be said.")
    if row.temperature < COLD:
        return likeliest
    try:
        return _drawn(row, logits.float().cpu())
    except Exception as error:
        return RowFailed(f"no token can be drawn: {type(error).__name__}: {error}")


def _drawn(row: EngineRow[Any], logits: Tensor) -> int:
    warmed = (logits - logits.max()) / row.temperature
    chances, order = torch.softmax(warmed, -1).sort(descending=True, stable=True)
    if row.top_p < 1.0:
        chances[chances.cumsum(0) - chances >= row.top_p] = 0.0
    dice = torch.Generator().manual_seed((row.seed * _SPREAD + len(row.said)) % (1 << 63))
    return int(order[torch.multinomial(chances, 1, generator=dice)])
