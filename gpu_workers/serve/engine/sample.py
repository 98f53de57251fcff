"""The next token of each row: the likeliest, or drawn by the row's own dice. On the device, for all rows at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpu_workers.serve.engine.moved import moved
from gpu_workers.serve.schedule.rows import EngineRow

# One die for each (seed, place, token): nothing is kept between steps, and no row or order of chances moves another's.
_SPREAD, _PLACE = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407
_GOLDEN, _MIX, _MIX_AGAIN = -7_046_029_254_386_353_131, -4_658_895_280_553_007_687, -7_723_592_293_110_705_685
COLD = 1e-4
"""Below this temperature the likeliest token has all of the chance that numbers can hold."""


class Drawn(NamedTuple):
    """What came of one row."""

    token: int
    finite: bool
    said: float = 0.0
    """The logarithm of its chance, where the row wants chances."""
    likeliest: tuple[tuple[int, float], ...] = ()


def sample(
    rows: Sequence[EngineRow[Any]], logits: Tensor, allowed: Tensor, well: Tensor
) -> tuple[list[Drawn], list[bool]]:
    """Depends on a row's own logits, seed and place only. `allowed` has the logits of what a row's form lets through;
    `well` comes back as it is, with what is not finite here: in the one transfer of a step, but for chances."""
    best = logits.max(-1)
    finite = best.values.isfinite() & logits.amin(-1).isfinite()
    tokens = best.indices if allowed is logits else allowed.argmax(-1)
    if warm := [i for i, row in enumerate(rows) if row.temperature >= COLD]:
        [at] = moved([torch.tensor(warm)], logits.device)
        tokens.index_copy_(0, at, _drawn([rows[i] for i in warm], allowed[at].float()))
    told = torch.cat([tokens, finite.long(), well.long()]).tolist()
    chances = _chances(rows, logits.float(), tokens)
    count = len(rows)
    drawn = [Drawn(told[i], bool(told[count + i]), *chances.get(i, ())) for i in range(count)]
    return drawn, [bool(each) for each in told[2 * count :]]


def _drawn(rows: Sequence[EngineRow[Any]], logits: Tensor) -> Tensor:
    """The largest of (logit / temperature + Gumbel noise) is a draw by the chances, without an order among them."""
    [heat] = moved([torch.tensor([row.temperature for row in rows])], logits.device)
    warmed = (logits - logits.amax(-1, keepdim=True)) / heat[:, None]
    if any(row.top_k or row.top_p < 1.0 or row.min_p for row in rows):
        warmed = warmed.masked_fill(~_narrowed(rows, warmed.softmax(-1)), float("-inf"))
    return (warmed.double() + _noise(rows, logits)).argmax(-1)


def _narrowed(rows: Sequence[EngineRow[Any]], chances: Tensor) -> Tensor:
    """Who is likely enough: of the `top_k` likeliest the fewest that hold `top_p` of what these have together, and of
    them who has `min_p` of the likeliest's. Tokens of one chance are in or out together."""
    width = chances.shape[-1]
    asked = [(row.top_k or width, row.top_p, row.min_p) for row in rows]
    top_k, top_p, min_p = (
        each[:, None]
        for each in moved([torch.tensor(each, dtype=torch.double) for each in zip(*asked, strict=True)], chances.device)
    )
    falling = chances.sort(-1, descending=True).values
    kept = falling >= falling.gather(-1, top_k.long().clamp(1, width) - 1)
    held = (falling.double() * kept).cumsum(-1)  # in fewer bits a long tail is lost beside 1
    before = held - falling
    kept &= (before < top_p * held[:, -1:]) | (top_p >= 1.0)
    kept[:, 0] = True
    least = falling.gather(-1, kept.sum(-1, keepdim=True) - 1)
    return chances >= torch.maximum(least, min_p * falling[:, :1])


def _noise(rows: Sequence[EngineRow[Any]], logits: Tensor) -> Tensor:
    [starts] = moved(
        [torch.tensor([_signed(row.seed * _SPREAD + len(row.said) * _PLACE) for row in rows])], logits.device
    )
    tokens = torch.arange(logits.shape[-1], device=logits.device) * _GOLDEN
    dice = starts[:, None] + tokens
    dice = (dice ^ _shifted(dice, 30)) * _MIX
    dice = (dice ^ _shifted(dice, 27)) * _MIX_AGAIN
    return _gumbel(dice ^ _shifted(dice, 31))


def _gumbel(dice: Tensor) -> Tensor:
    """Of 52 of their bits: with a half more they are still numbers between 0 and 1, and never one of the two."""
    even = (_shifted(dice, 12).double() + 0.5) / (1 << 52)
    return -(-even.log()).log()


def _shifted(dice: Tensor, by: int) -> Tensor:
    """As of a number without a sign."""
    return (dice >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _chances(rows: Sequence[EngineRow[Any]], logits: Tensor, tokens: Tensor) -> dict[int, tuple[float, Any]]:
    """By the model's own numbers, before temperature and whatever narrows the choice."""
    wanted = [i for i, row in enumerate(rows) if row.logprobs is not None]
    if not wanted:
        return {}
    logs = logits[wanted].log_softmax(-1)
    said = logs.gather(-1, tokens[wanted][:, None])[:, 0].tolist()
    best = logs.topk(max(rows[i].logprobs or 0 for i in wanted), -1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    tops = [
        tuple(zip(ids, values, strict=True))[: rows[i].logprobs] for i, (ids, values) in zip(wanted, pairs, strict=True)
    ]
    return {i: (chance, top) for i, chance, top in zip(wanted, said, tops, strict=True)}
