"""`rillfold worker train`: takes training requests from the log, one at a time."""

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gpu_workers.train.parent import KeptChild
from gpu_workers.train.place import Workplace
from gpu_workers.train.worker import Trainer
from processors.training.admit import RunBounds
from processors.training.promotion import GateFloors
from rillfold import adapter_keys
from rillfold.app.installed import installed
from rillfold.event_log import event_log, now
from rillfold.settings import Settings
from rillfold.wiring import artifact_store, places
from rillfold.workers.run import Working, worker
from schemas.errors import RillfoldError
from streams.health.watchman import EX_SOFTWARE

log = logging.getLogger(__name__)


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Train adapters as requests come in. Several of these share the work by company."""
    place = Workplace(
        worker=f"{socket.gethostname()}/{os.getpid()}",
        scratch=settings.data_dir.absolute() / "training",
        cache=settings.cache_dir,
        threads=settings.train_threads or os.cpu_count() or 1,
        clock=now,
        bases=settings.bases(),
        bounds=RunBounds(
            texts=settings.train_max_texts,
            seconds=settings.train_max_seconds,
            rows_bytes=settings.train_max_bytes,
            runs_a_day=settings.train_runs_per_day,
            seconds_a_day=settings.train_seconds_per_day,
        ),
        floors=GateFloors(
            on=settings.gate == "on", irrelevance=settings.gate_irrelevance, malformed=settings.gate_malformed
        ),
        places=places(settings),
        rules=installed(settings).rules,
        build=adapter_keys.installed(),
    )
    adapter_keys.make_own(settings)  # a key that cannot be used is told now, not when hours were spent
    place.check_bases()
    async with event_log(settings) as events, KeptChild() as child:
        trainer = Trainer(events, settings.topic_names(), artifact_store(settings), place, child)

        async def run(ready: Callable[[], None]) -> None:
            """Whatever a request causes is its own outcome: an error here is the machine's."""
            try:
                await trainer.run(ready)
            except Exception as error:
                trace = None if isinstance(error, RillfoldError) else error
                log.critical("The training worker ends: %s", error, exc_info=trace)
                sys.exit(EX_SOFTWARE)

        yield Working(run, trainer.standing.sight, trainer.counts)


train = worker("train", _made)
