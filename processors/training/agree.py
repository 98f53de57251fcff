"""Do a method and its settings go together? What can be known before anything is read is refused before it is."""

from typing import NamedTuple

from processors.dataset.selection import Selection
from processors.dataset.turns import THIRD
from processors.training.schedule import NoSchedule, rank_schedule
from processors.training.settings import TrainSettings


class Disagreement(NamedTuple):
    """Machine readable reason, and a sentence with the remedy."""

    reason: str
    detail: str


def disagreement(method: str, settings: TrainSettings) -> Disagreement | None:
    if method == "adalora" and not settings.epochs:  # by epochs its steps are known when its rows are
        plan = rank_schedule(settings, settings.steps)
        if isinstance(plan, NoSchedule):
            return Disagreement("bad_schedule", plan.detail)
    if settings.target_rank and method != "adalora":
        return Disagreement(
            "bad_settings", f"target_rank is of adalora alone, and the method is {method}: leave it out."
        )
    if settings.patience and not settings.measure_every:
        detail = f"patience={settings.patience} counts measures, and measure_every=0 makes none. Set measure_every=5."
        return Disagreement("bad_settings", detail)
    if settings.measure_every and not settings.evaluation_rows:
        detail = f"measure_every={settings.measure_every} measures on evaluation_rows, of which there are 0. Set some."
        return Disagreement("bad_settings", detail)
    if settings.objective != "supervised" and settings.rule < THIRD:
        detail = (
            f"{settings.objective} learns from feedback, which rows of rule {settings.rule} do not have. Set rule=3."
        )
        return Disagreement("bad_settings", detail)
    if settings.rule < THIRD and (settings.tools != "closed-book" or settings.select != Selection()):
        detail = f"rows of rule {settings.rule} know neither tools nor select: those are of rule 3 on. Set rule=3."
        return Disagreement("bad_settings", detail)
    return None
