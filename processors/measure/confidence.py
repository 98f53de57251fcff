"""Is a difference on the same cases more than noise? Pure: draws come from a counter and a seed, always alike."""

from collections.abc import Sequence
from math import comb

import msgspec

from processors.measure.draws import draws
from processors.measure.measures import Suite, paired

RESAMPLES = 2_000
LEVEL = 0.95


class SuiteDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Of two adapters, or of one and the base, on the cases that both answered."""

    cases: int
    candidate: float
    """Share that it answers rightly."""
    served: float
    gained: int
    """Cases that the candidate alone answers rightly."""
    lost: int
    """Those that what is served now alone does."""
    low: float
    """The difference in share, between here and `high` in 95 of a hundred draws of as many cases."""
    high: float
    chance: float
    """That a split of gained and lost like this one, or a wider one, comes by chance alone (McNemar, exact)."""

    @property
    def share(self) -> float:
        return self.candidate - self.served


def difference(candidate: Suite, served: Suite, seed: int = 0) -> SuiteDifference:
    pairs = paired(candidate.outcomes, served.outcomes)
    gained, lost = (pairs.count((right, not right)) for right in (True, False))
    low, high = interval([int(now) - int(then) for now, then in pairs], seed)
    return SuiteDifference(
        cases=len(pairs),
        candidate=_mean([now for now, _ in pairs]),
        served=_mean([then for _, then in pairs]),
        gained=gained,
        lost=lost,
        low=low,
        high=high,
        chance=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided, exact: how likely a fair coin falls as unevenly, or more so, on the cases that changed."""
    changed = gained + lost
    tail = sum(comb(changed, heads) for heads in range(min(gained, lost) + 1))
    return min(1.0, tail / 2 ** (changed - 1)) if changed else 1.0


def interval(
    differences: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """The mean's, by paired bootstrap: as many cases again and again, drawn with replacement."""
    if not differences:
        return 0.0, 0.0
    count, drawn = len(differences), draws(seed)
    means = sorted(sum(differences[next(drawn) % count] for _ in range(count)) / count for _ in range(resamples))
    outside = round((1 - level) / 2 * resamples)
    return means[outside], means[-1 - outside]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
