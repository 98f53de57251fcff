"""Numbers as an answer may write them: bounded, so that whoever reads the JSON reads the same number."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

LARGEST_INTEGER = 10**18 - 1
LARGEST_NUMBER = 10**15
"""Beyond them JSON readers disagree; an exponent, which could make an infinity, is never written."""
LARGEST_STEP, FINEST_STEP = 1_000, 10
"""Of multipleOf: its digits without a point, and how many of them may stand after it."""


def bounded(schema: dict[str, Any], largest: int) -> dict[str, Any]:
    """With bounds on both sides, of what it says and what is written at most."""
    done = dict(schema)
    for name, exclusive, sign in (("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)):
        for each in (name, exclusive):
            if _is_number(done.get(each)) and sign * done[each] > largest:
                del done[each]
        if name not in done and exclusive not in done:
            done[name] = sign * largest
    return done


def hard_step(step: object) -> str | None:
    """Why multiples of it cannot be told by their digits in few states."""
    if not _is_number(step):
        return "and no number"
    _, digits, exponent = Decimal(str(step)).normalize().as_tuple()
    if not isinstance(exponent, int) or not -FINEST_STEP <= exponent <= FINEST_STEP:
        return "which is too large or too fine"
    if int("".join(map(str, digits))) * 10 ** max(0, exponent) > LARGEST_STEP:
        return f"and its digits are at most {LARGEST_STEP}"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
