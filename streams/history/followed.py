"""One training run as the log tells it, for whoever asked for it."""

import asyncio
from collections.abc import AsyncIterator

from projections.projection import Projection
from projections.training_runs import ENDED, Run
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.fold.view import View
from streams.log.port import EventLog

LOOK_SECONDS = 0.3


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
