"""Rillfold's own worker, as it runs in production: RocksDB, fenced changelog, exact effect. Only a meter is added."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from bench.peers.meter import Job, Meter, job
from projections.projection import Projection
from schemas.envelope import Event
from schemas.topics import TopicNames, by_entity
from streams import app as engine
from streams.fold import Batch
from streams.folding import Folding


class Count(msgspec.Struct, frozen=True):
    n: int = 0


def _one_more(state: Count, _event: Event) -> Count:
    return Count(state.n + 1)


COUNTER = Projection(
    name="bench-count",
    version=1,
    topics=("company-data",),
    state=Count,
    key=by_entity,
    initial=lambda _key: Count(),
    fold=_one_more,
)


def metered(meter: Meter) -> type[Folding]:
    """A batch counts once its step has returned: its rows are acknowledged and stored."""

    class Metered(Folding):
        def begin(self, topic: str, partition: int, first: int) -> int | None:
            if not meter.seen:
                meter.start()
            return super().begin(topic, partition, first)

        async def step(self, batch: Batch) -> None:
            (shard,) = self.feeding(batch.topic, batch.partition)
            before = shard.next(batch.topic) or 0
            await super().step(batch)
            if meter.add((shard.next(batch.topic) or 0) - before):
                meter.stop()
                meter.report({key: row.n for shard in self.shards() for key, row in shard.rows()})
                os._exit(0)

    return Metered


def run(job: Job, projection: Projection[Any]) -> None:
    meter = Meter(job.events)
    names = TopicNames(f"{job.id}-", {"company-data": job.topic})
    worker = engine.Worker(job.bootstrap, job.id, "one", Path(job.scratch), names)
    engine.Folding = metered(meter)  # type: ignore[misc]
    engine.run(worker, [projection])


if __name__ == "__main__":
    run(job(), COUNTER)
