"""Rillfold's fold as in production: watched, answering for its rows. Goes on after the last event, until killed."""

import os
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from bench.peers.meter import Job, Meter, job
from bench.peers.rillfold_fold import COUNTER, counted, metered, worker
from rillfold.settings import Settings
from rillfold.workers.watched import watched
from streams.log.kafka.access import KafkaAccess
from streams.owner import app as engine
from streams.owner.glance import Glance

TOKEN = "of-the-bench"


def run(job: Job) -> None:
    meter = Meter(job.events)
    engine.Folding = metered(meter, lambda folding: meter.report(counted(folding)))  # type: ignore[misc]
    engine.run(worker(job), [COUNTER], beside=partial(_beside, job))


def _beside(job: Job, glance: Glance) -> AbstractContextManager[object]:
    settings = Settings(data_dir=Path(job.scratch), serve_token=TOKEN)
    return watched(settings, "one", KafkaAccess(job.bootstrap), glance.sight, glance.counts, glance.row)


if __name__ == "__main__":
    try:
        run(job())
    finally:
        sys.stdout.flush()
        os._exit(0)
