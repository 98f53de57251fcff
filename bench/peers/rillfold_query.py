"""Rillfold's fold as in production: watched, answering for its rows. Goes on after the last event, until killed."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from bench.peers.meter import Job, Meter, job
from bench.peers.rillfold_fold import COUNTER
from rillfold.settings import Settings
from rillfold.watched import watched
from schemas.topics import TopicNames
from streams import app as engine
from streams.fold import Batch
from streams.folding import Folding
from streams.glance import Glance


def metered(meter: Meter) -> type[Folding]:
    class Metered(Folding):
        def begin(self, topic: str, partition: int, first: int) -> int | None:
            if not meter.seen:
                meter.start()
            return super().begin(topic, partition, first)

        async def step(self, batch: Batch) -> None:
            (shard,) = self.feeding(batch.topic, batch.partition)
            before = shard.next(batch.topic) or 0
            await super().step(batch)
            if meter.seen < meter.events and meter.add((shard.next(batch.topic) or 0) - before):
                meter.stop()
                meter.report({key: row.n for shard in self.shards() for key, row in shard.rows()})

    return Metered


def run(job: Job) -> None:
    names = TopicNames(f"{job.id}-", {"company-data": job.topic})
    worker = engine.Worker(job.bootstrap, job.id, "one", Path(job.scratch), names)
    engine.Folding = metered(Meter(job.events))  # type: ignore[misc]
    engine.run(worker, [COUNTER], beside=partial(_beside, job))


def _beside(job: Job, glance: Glance) -> AbstractContextManager[object]:
    settings = Settings(data_dir=Path(job.scratch))
    return watched(settings, "one", job.bootstrap, glance.sight, glance.counts, glance.row)


if __name__ == "__main__":
    try:
        run(job())
    finally:
        sys.stdout.flush()
        os._exit(0)
