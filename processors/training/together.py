"""Which settings go together. Pure: a table of those that do not, each with the remedy."""

from collections.abc import Callable, Mapping

from processors.dataset.selection import Selection
from processors.training.settings import TrainSettings

JUDGED = 3
"""The first rule of datasets that knows what people and tools said of an answer, and which tools were on offer."""

Odd = Callable[[str, TrainSettings], bool]

NOT_TOGETHER: Mapping[str, Odd] = {
    "objective {0.objective} learns from what was said of answers; rule {0.rule} keeps none of it: leave rule out": (
        lambda _method, it: it.objective != "supervised" and it.rule < JUDGED
    ),
    "tools {0.tools} needs the tools that were on offer, and rule {0.rule} keeps none of them: leave rule out": (
        lambda _method, it: it.tools != "closed-book" and it.rule < JUDGED
    ),
    "select narrows what rule 3 and later ones take, and rule {0.rule} takes everything: leave one of them out": (
        lambda _method, it: it.select != Selection() and it.rule < JUDGED
    ),
    "beta {0.beta} is of dpo and kto, and the objective is supervised: leave it out": (
        lambda _method, it: it.beta != TrainSettings().beta and it.objective == "supervised"
    ),
    "patience {0.patience} counts measures of the held-out loss, and there are none: set measure_every": (
        lambda _method, it: bool(it.patience) and not it.measure_every
    ),
    "target_rank {0.target_rank} is of adalora: leave it out, or take that method": (
        lambda method, it: bool(it.target_rank) and method != "adalora"
    ),
}


def together(method: str, settings: TrainSettings) -> str | None:
    """The first that does not go, as a sentence; None: all do."""
    return next((f"{why.format(settings)}." for why, odd in NOT_TOGETHER.items() if odd(method, settings)), None)
