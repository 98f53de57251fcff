"""What a request of this door reads of the log: of one key, in bounded time, a few at once of a company."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rillfold.http.errors import ApiError
from rillfold.wiring import Services
from schemas.codec.codec import decode
from schemas.envelope import Event
from streams.fairness.slices import Slices, in_turns
from streams.log.port import records_in

READ_SECONDS = 60.0
"""A file of the largest size is read in a few. Where its own words say that it stands, and how much, anybody may say
who has the company's key."""


@asynccontextmanager
async def reading(serving: Services, company: str) -> AsyncIterator[None]:
    """Around all that one request reads, however long the stretch is that it was told of."""
    async with serving.readings.turn(company):
        limit = asyncio.timeout(READ_SECONDS)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            told = f"What this asks for was not read within {READ_SECONDS:.0f} seconds: too much stands around it."
            raise ApiError(503, "too_slow", told, Retry_After="60") from None


async def own_events(
    serving: Services, company: str, key: str, topic: str, partition: int, start: int, stop: int
) -> AsyncIterator[Event]:
    """Another's records are never decoded. `topic`: as on the wire."""
    own = key.encode()
    async for record in in_turns(records_in(serving.log, topic, partition, start, stop), Slices()):
        if record.key == own:
            event = decode(record.value, record.origin, record.timestamp, record.headers)
            if isinstance(event, Event) and event.company == company:
                yield event
