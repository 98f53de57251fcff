"""What an API knows of its installation beside the rows, for its operator: workers, what waits, letters, disk."""

import asyncio
import shutil

from fastapi import APIRouter
from pydantic import BaseModel

from rillfold.api.access import Admin, Serving
from rillfold.embedded.neighbours import neighbours
from rillfold.processes import WORKERS
from rillfold.wiring import Services
from schemas.topics import BY_NAME
from streams.errors import UnknownTopic
from streams.history.letters import TOPIC, letters
from streams.log.kafka.refused import NotAllowed
from streams.log.port import extents

router = APIRouter(tags=["health"])
LETTERS = 10_000
"""So many records of the dead-letter topic are read to be told apart."""
OURSELVES = "api"


class WorkerSeen(BaseModel):
    """A worker that was started on the API's data folder and did not end in order."""

    name: str
    url: str
    answers: bool
    ready: bool
    why: str
    behind: int
    """Offsets, of all its partitions."""
    stalls: int
    """Since its process began."""


class WorkWaiting(BaseModel):
    """What the log holds for a kind of worker behind what its group has committed, wherever its workers run."""

    worker: str
    topic: str
    behind: int | None
    """None: the API's Kafka user may not ask how far a group is."""


class LettersSeen(BaseModel):
    records: int
    """On the topic: letters, their repeats, and marks of what was sent again."""
    waiting: int | None
    """Letters that were not sent again. None: there are too many records to tell them apart here."""


class Disk(BaseModel):
    """On which the API's data folder lies."""

    folder: str
    free: int
    total: int


class StatusBody(BaseModel):
    provider: str
    """embedded: log, database and workers are all on this machine and data folder. Else some may be anywhere."""
    workers: list[WorkerSeen]
    waiting: list[WorkWaiting]
    letters: LettersSeen
    disk: Disk


@router.get("/status")
async def status(_: Admin, serving: Serving) -> StatusBody:
    """How the installation is, as far as it can be seen from where the API runs. With the admin's key."""
    folder = serving.settings.data_dir.absolute()
    seen, waiting, found, usage = await asyncio.gather(
        neighbours(folder), _waiting(serving), _letters(serving), asyncio.to_thread(shutil.disk_usage, folder)
    )
    return StatusBody(
        provider=serving.settings.provider,
        workers=[WorkerSeen(**each._asdict()) for each in seen if each.name != OURSELVES],
        waiting=waiting,
        letters=found,
        disk=Disk(folder=str(folder), free=usage.free, total=usage.total),
    )


async def _waiting(serving: Services) -> list[WorkWaiting]:
    return [
        WorkWaiting(worker=kind, topic=each.reads, behind=await _behind(serving, each.group, each.reads))
        for kind, each in WORKERS.items()
        if each.reads in BY_NAME
    ]


async def _behind(serving: Services, group: str, topic: str) -> int | None:
    """Of what is still there."""
    wire = serving.names.wire(topic)
    try:
        committed = await serving.log.committed(f"{serving.names.prefix}{group}", wire)
        held = await extents(serving.log, wire)
    except NotAllowed:
        return None
    except UnknownTopic:
        return 0
    return sum(max(0, each.end - max(each.first, committed.get(n, 0))) for n, each in held.items())


async def _letters(serving: Services) -> LettersSeen:
    try:
        held = await extents(serving.log, serving.names.wire(TOPIC))
    except UnknownTopic:
        return LettersSeen(records=0, waiting=0)
    records = sum(each.end - each.first for each in held.values())
    if records > LETTERS:
        return LettersSeen(records=records, waiting=None)
    kept = await letters(serving.log, serving.names, lambda _: True, bare=True)
    return LettersSeen(records=records, waiting=sum(not each.redriven for each in kept))
