"""All projections of ours, by name."""

from collections.abc import Collection, Mapping
from typing import Any

from projections.companies import COMPANIES
from projections.company_tools import COMPANY_TOOLS
from projections.costs import COSTS
from projections.datasets import DATASETS
from projections.jobs import JOBS
from projections.lora_adapters import LORA_ADAPTERS
from projections.memories import MEMORIES
from projections.projection import Projection
from projections.rollouts import ROLLOUTS
from projections.sessions import SESSIONS
from projections.tool_calls import TOOL_CALLS
from projections.training_runs import TRAINING_RUNS
from projections.tuning.files import FILES
from schemas.errors import Stop
from schemas.near import meant

PROJECTIONS: Mapping[str, Projection[Any]] = {
    projection.name: projection
    for projection in (
        COMPANIES,
        COMPANY_TOOLS,
        DATASETS,
        LORA_ADAPTERS,
        TRAINING_RUNS,
        JOBS,
        TOOL_CALLS,
        COSTS,
        SESSIONS,
        MEMORIES,
        ROLLOUTS,
        FILES,
    )
}


def chosen(names: Collection[str], among: Mapping[str, Projection[Any]]) -> list[Projection[Any]]:
    """Those that are named; without names all."""
    if unknown := sorted(set(names) - set(among)):
        guess = meant(unknown[0], among)
        raise Stop(f"No projection is called {', '.join(unknown)}.{guess} There are {', '.join(sorted(among))}.")
    return [each for name, each in among.items() if not names or name in names]
