"""All that the log says of one run, in its order: read where it stands, for no row holds it."""

from projections.training_runs import TRAINING_RUNS, Run
from rillfold.wiring import Services
from schemas.codec.codec import decode
from schemas.envelope import Event
from streams.errors import MissingOffsets
from streams.log.port import records_in

SKEW_MS = 600_000
"""The log's clock and that of whoever asked may be so far apart."""


async def story_of(serving: Services, run: Run) -> list[Event]:
    """From its request to the last that changed its row: all in the company's one partition."""
    key = f"{run.company}/{run.run}"
    row = await serving.reads.row(TRAINING_RUNS, key)
    if row is None:
        return []
    topic, partition = row.at.topic, row.at.partition
    start = (await serving.log.offsets_at(topic, max(0, run.requested_at // 1_000 - SKEW_MS)))[partition]
    try:
        return await _of(serving, run, topic, partition, min(start, row.at.offset), row.at.offset + 1)
    except MissingOffsets as error:
        return await _of(serving, run, topic, partition, error.first, row.at.offset + 1)


async def _of(serving: Services, run: Run, topic: str, partition: int, start: int, stop: int) -> list[Event]:
    """Another company's records are never decoded; what is said twice is told once."""
    owner, found = run.company.encode(), dict[str, Event]()
    async for record in records_in(serving.log, topic, partition, start, stop):
        if record.key != owner:
            continue
        event = decode(record.value, record.origin, record.timestamp, record.headers)
        if isinstance(event, Event) and event.company == run.company and TRAINING_RUNS.key(event) == _key(run):
            found.setdefault(event.id, event)
    return list(found.values())


def _key(run: Run) -> str:
    return f"{run.company}/{run.run}"
