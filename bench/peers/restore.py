"""Rillfold's worker on a folder that is empty, or was left by a run before: from its assignment until it is ready."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter, process_time

from faust.types import TP

from bench.peers.meter import Job, job, megabytes
from bench.peers.rillfold_fold import COUNTER
from schemas.topics import TopicNames
from streams.log.kafka.access import KafkaAccess
from streams.owner import app as engine
from streams.owner.shards import ShardOwner


def timed(job: Job) -> type[ShardOwner]:
    class Timed(ShardOwner):
        started = cpu = 0.0

        async def assigned(self, changelogs: Iterable[TP]) -> None:
            Timed.started, Timed.cpu = Timed.started or perf_counter(), Timed.cpu or process_time()
            await super().assigned(changelogs)

        def ready(self) -> None:
            seconds, cpu = perf_counter() - Timed.started, process_time() - Timed.cpu
            rows = sum(1 for shard in self._folding.shards() for _ in shard.rows())
            figures = {"seconds": seconds, "rows": rows, "cpu": cpu, "peak_rss_mb": megabytes("VmHWM")}
            print(json.dumps({"restored": figures}), flush=True)
            os._exit(0 if rows == job.events else 1)

    return Timed


def run(job: Job) -> None:
    worker = engine.Worker(KafkaAccess(job.bootstrap), job.id, "one", Path(job.scratch), TopicNames(job.topic))
    engine.ShardOwner = timed(job)  # type: ignore[misc]
    engine.run(worker, [COUNTER])


if __name__ == "__main__":
    run(job())
