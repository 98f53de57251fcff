"""`rillfold worker serve`: one process, one batch, two doors: the inference-request topic and /v1 over HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gpu_workers.serve.worker import InferenceWorker
from rillfold import wiring
from rillfold.event_log import event_log, now
from rillfold.settings import Settings
from rillfold.v1.figures import EngineMetrics
from rillfold.workers.beside import Door
from rillfold.workers.run import Working, worker, world


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Answer requests of the log and of HTTP with the base model and every adapter that the log says is ready."""
    with world():
        async with wiring.engine(settings) as engine, event_log(settings) as log:
            inference = InferenceWorker(log, settings.topic_names(), engine, now, at_once=settings.serve_in_flight)

            async def run(ready: Callable[[], None]) -> None:
                await Door(engine, settings).beside(inference.run(ready))

            yield Working(run, inference.standing.sight, inference.counts, more=EngineMetrics(engine))


serve = worker("serve", _made)
