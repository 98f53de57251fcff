"""One training run as the log tells it, for whoever asked for it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

from projections.projection import Projection
from projections.training_runs import ENDED, Run
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.port import EventLog

LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 30.0
"""After so long it is said that no worker has taken a run."""


class NobodyTakes:
    """Says so, once."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._until = say, clock, clock() + PATIENCE_SECONDS

    def look(self, run: Run) -> None:
        if run.status == "requested" and not run.phase and self._clock() > self._until:
            self._until = math.inf
            self._say(f"No training worker has taken run {run.run} yet. Is `rillfold worker train` running?")


async def followed(
    log: EventLog, names: TopicNames, request: TrainingRequested, projection: Projection[Run]
) -> AsyncIterator[Run]:
    """Its row at each look, whether it is another or not; the last has its outcome."""
    view = View(log, names, projection)
    while True:
        run = (await view.catch_up())[f"{request.company}/{request.id}"]
        yield run
        if run.status in ENDED:
            return
        await asyncio.sleep(LOOK_SECONDS)
