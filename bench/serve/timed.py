"""What a contestant said, and what it cost; and that all say the same."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

TIE = 1e-4
"""Of logit: two tokens that are nearer than this may be said one for the other."""


class Timed(NamedTuple):
    said: list[list[int]]
    seconds: float
    """Of this process, whichever thread."""


Logits = Callable[[int | None, list[int]], Tensor]
"""The reference's logits after these tokens, with one adapter or none."""


class Ledger:
    """The first who answers a set of prompts is the truth of it: all others are held to every token."""

    def __init__(self, logits: Logits) -> None:
        self._logits = logits
        self._truth: dict[Any, list[list[int]]] = {}
        self.compared = self.ties = 0

    def hold(
        self,
        who: str,
        key: object,
        said: Sequence[list[int]],
        prompts: Sequence[list[int]],
        adapters: Sequence[int | None],
        tie: float = TIE,
    ) -> None:
        """Ends the bench where somebody says another token that is no tie: a fast wrong answer is no figure."""
        truth = self._truth.setdefault(key, [list(row) for row in said])
        for row, (ours, theirs) in enumerate(zip(truth, said, strict=True)):
            if len(ours) != len(theirs):
                raise SystemExit(f"{who}: {len(theirs)} tokens of row {row} of {key}, not {len(ours)}")
            self.compared += len(ours)
            parts = [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
            if parts:
                at = parts[0]
                gap = self._gap(adapters[row], prompts[row] + ours[:at], (ours[at], theirs[at]))
                self._name(f"{who}: row {row} of {key}, token {at}: {theirs[at]} for {ours[at]}", gap, tie)

    def _gap(self, adapter: int | None, tokens: list[int], two: tuple[int, int]) -> float:
        logits = self._logits(adapter, tokens)
        return abs(float(logits[two[0]] - logits[two[1]]))

    def _name(self, what: str, gap: float, tie: float) -> None:
        if gap >= tie:
            raise SystemExit(f"{what}, {gap:.2g} of logit apart: it is wrong, so its speed means nothing")
        self.ties += 1
        print(f"a tie: {what}, {gap:.2g} of logit apart", file=sys.stderr)
