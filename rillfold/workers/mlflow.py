"""`rillfold worker mlflow`: training runs into MLflow, as the log tells of them."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rillfold import wiring
from rillfold.event_log import event_log
from rillfold.settings import Settings
from rillfold.workers.run import Working, worker, world
from streams.tracking.errors import MlflowAway
from streams.tracking.follower import RunFollower
from streams.tracking.mlflow import Mlflow

log = logging.getLogger(__name__)


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Note training runs in the MLflow of RILLFOLD_MLFLOW_URL. One is enough; who begins later shuts the first out."""
    async with wiring.mlflow(settings) as there, event_log(settings, "rillfold-mlflow") as log:
        follower = RunFollower(log, settings.topic_names(), there)

        async def run(ready: Callable[[], None]) -> None:
            with world():
                await _look(there)
                await follower.run(ready)

        yield Working(run, follower.sight, follower.counts)


async def _look(there: Mlflow) -> None:
    """A wrong address is told now: the first run may be days away."""
    try:
        await there.answers()
    except MlflowAway as error:
        log.warning("%s", error)


mlflow = worker("mlflow", _made)
