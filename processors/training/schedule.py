"""When AdaLoRA takes ranks away, and how many: from the settings alone, before anything is trained."""

from math import ceil

import msgspec

from processors.training.settings import MOST_RANK, TrainSettings

FEWEST_STEPS = 3
"""One to learn what matters, one after which ranks are taken, one to settle."""
REDUCTIONS = 20
"""So often are ranks taken away, where there are steps enough."""


class RankSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """Every matrix begins with `first_rank`; from step `warm` on the whole is cut to `target_rank` on average."""

    first_rank: int
    target_rank: int
    steps: int
    warm: int
    """Steps before the first cut."""
    settle: int
    """Steps after the last."""
    every: int
    """Steps from one cut to the next."""

    @property
    def last_cut(self) -> int:
        return self.steps - self.settle


class NoSchedule(msgspec.Struct, frozen=True):
    """Why no ranks can be reallocated, with the nearest settings by which they can."""

    detail: str


def rank_schedule(settings: TrainSettings, steps: int) -> RankSchedule | NoSchedule:
    """People write a target over the first rank, too: then the first one is raised until there is something to cut."""
    if steps < FEWEST_STEPS:
        return NoSchedule(
            f"AdaLoRA has to learn what matters, cut, and settle: {steps} steps are too few. Set steps={FEWEST_STEPS}."
        )
    target = settings.target_rank or max(1, settings.rank // 2)
    first = settings.rank if settings.rank > target else min(MOST_RANK, ceil(1.5 * target))
    if first <= target:
        return NoSchedule(
            f"no rank may be over {MOST_RANK}, so none can be cut to {target} on average. "
            f"Set target_rank={MOST_RANK - 1} or less."
        )
    warm, settle = max(1, steps // 8), max(1, steps // 3)
    every = max(1, (steps - settle - warm) // REDUCTIONS)
    return RankSchedule(first_rank=first, target_rank=target, steps=steps, warm=warm, settle=settle, every=every)
