"""The releases that a seed's fleet is brought through, and a worker of an older one: `... releases before fold-0`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from processors.saga import ACTING_JOBS
from projections.catalog import PROJECTIONS
from projections.memories import MEMORIES
from projections.projection import Projection
from rillfold.settings import from_env
from rillfold.workers.fold import fold_as
from rillfold.workers.logging import install
from streams.owner.app import FOLD_GROUP

ALL: tuple[Projection[Any], ...] = tuple({**PROJECTIONS, ACTING_JOBS.name: ACTING_JOBS}.values())
ADDED = MEMORIES
BUMPED = ACTING_JOBS
"""The one that acts: its next version must do nothing again."""
OLDER = replace(BUMPED, version=BUMPED.version - 1)

_before_the_bump = tuple(OLDER if each.name == BUMPED.name else each for each in ALL)
RELEASES: dict[str, tuple[Projection[Any], ...]] = {
    "before": tuple(each for each in _before_the_bump if each.name != ADDED.name),
    "adds": _before_the_bump,
    "bumps": ALL,
}
"""In their order. The last is this checkout's own."""
LAST = "bumps"


def command(release: str, name: str) -> tuple[str, tuple[str, ...]]:
    """The module that is a worker of the release, and what it is told."""
    if release == LAST:
        return "rillfold", ("worker", "fold", "--name", name)
    return __name__, (release, name)


def main(release: str, name: str) -> None:
    install("WARNING")
    settings = from_env()
    fold_as(settings, name, f"{settings.topic_prefix}{FOLD_GROUP}", RELEASES[release])


if __name__ == "__main__":
    main(*sys.argv[1:])
