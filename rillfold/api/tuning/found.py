"""Rows that this door asks for: one, all that belong to it, and one that is as somebody just wrote it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec

from projections.projection import Projection
from rillfold.wiring import Services
from schemas.errors import Retry
from streams.read_model.reads import ProjectedRow

State = TypeVar("State", bound=msgspec.Struct)
PAGE = 200
WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.05


def state_of(projection: Projection[State], row: ProjectedRow) -> State:
    return msgspec.json.decode(row.json, type=projection.state)


async def one(serving: Services, projection: Projection[State], key: str) -> State | None:
    row = await serving.reads.row(projection, key)
    return None if row is None else state_of(projection, row)


async def those_of(
    serving: Services, projection: Projection[State], company: str, prefix: str, after: str | None = None
) -> AsyncIterator[State]:
    """Of one company, those whose name begins so, from the first behind `after`. A database orders names as it was
    set up to: others may stand between them."""
    begins, at = f"{company}/{prefix}", f"{company}/{after or prefix}"
    while True:
        page = await serving.reads.page(projection, company, at, PAGE)
        for row in page.rows:
            if row.key.startswith(begins):
                yield state_of(projection, row)
        if page.next is None:
            return
        at = page.next


async def until(
    serving: Services, projection: Projection[State], key: str, true: Callable[[State], bool]
) -> State | None:
    """The row as soon as it is so; None where that takes too long, and whoever asked is told what stands in the log."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            found = await one(serving, projection, key)
        except Retry:
            return None
        if found is not None and true(found):
            return found
        await asyncio.sleep(LOOK_SECONDS)
    return None
