"""Rillfold's own worker, as it runs in production: RocksDB, fenced changelog, exact effect. Only a meter is added."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.peers.meter import Job, Meter, job
from projections.catalog import PROJECTIONS
from projections.projection import Projection
from schemas.envelope import Event
from schemas.topics import TopicNames, by_entity
from streams.fold.batch import Batch
from streams.fold.folding import Folding
from streams.log.kafka.access import KafkaAccess
from streams.log.port import Extent
from streams.owner import app as engine


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


REAL = tuple(projection for projection in PROJECTIONS.values() if projection.topics == ("company-data",))
"""Ours that fold the same topic."""


def metered(meter: Meter, ended: Callable[[Folding], None]) -> type[Folding]:
    """A batch counts once its step has returned: its rows are acknowledged and stored."""
    reached = dict[int, int]()

    class Metered(Folding):
        def begin(self, topic: str, partition: int, extent: Extent, read_to: int | None = None) -> int | None:
            if not meter.seen:
                meter.start()
            return super().begin(topic, partition, extent, read_to)

        async def step(self, batch: Batch) -> None:
            await super().step(batch)
            before, after = reached.get(batch.partition, 0), self.folded(batch.topic, batch.partition) or 0
            reached[batch.partition] = after
            if meter.seen < meter.events and meter.add(after - before):
                meter.stop()
                ended(self)

    return Metered


def counted(folding: Folding, counter: Projection[Count] = COUNTER) -> dict[str, int]:
    return {key: row.n for shard in folding.shards() if shard.projection is counter for key, row in shard.rows()}


def worker(job: Job, name: str = "one") -> engine.Worker:
    names = TopicNames(f"{job.id}-", {"company-data": job.topic})
    return engine.Worker(KafkaAccess(job.bootstrap), job.id, name, Path(job.scratch), names)


def run(job: Job, projections: Sequence[Projection[Any]]) -> None:
    """The first projection counts."""
    meter = Meter(job.events)

    def ended(folding: Folding) -> None:
        meter.report(counted(folding, projections[0]))
        os._exit(0)

    engine.Folding = metered(meter, ended)  # type: ignore[misc]
    engine.run(worker(job), projections)


if __name__ == "__main__":
    run(job(), [COUNTER, *REAL] if "--real" in sys.argv else [COUNTER])
