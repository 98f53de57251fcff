"""The API over a log in memory, its fold, and Postgres behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from processors.saga import ACTING_JOBS
from projections.catalog import PROJECTIONS
from projections.jobs import JOBS
from rillfold.embedded.stack import Endpoints
from rillfold.testing.driver import Driver
from streams.log.memory import MemoryLog
from streams.read_model.postgres import PostgresSink
from streams.read_model.reads import Reads
from streams.read_model.sink import Follower

FOLDED = [*(p for p in PROJECTIONS.values() if p.name != JOBS.name), ACTING_JOBS]


class World:
    """The log in memory, its fold, Postgres behind it, and the API in front."""

    def __init__(self, api: Any, driver: Driver, follower: Follower, subscription: Any, database: Any) -> None:
        self.api, self.driver, self.database = api, driver, database
        self._follower, self._subscription = follower, subscription

    async def catch_up(self) -> None:
        """Everything in the log is folded, and stands in Postgres."""
        await self.driver.settle()
        for projection in FOLDED:
            while await self._behind(projection):
                await self._follower.step(self._subscription, self.driver.log)

    async def keep_up(self) -> None:
        """Until cancelled, as the workers do: while others write."""
        while True:
            await self.driver.settle()
            await self._follower.step(self._subscription, self.driver.log)
            await asyncio.sleep(0.1)

    async def _behind(self, projection: Any) -> bool:
        there = await self.api.services.reads.positions(projection, None)
        ends = {topic: await self.driver.log.ends(topic) for topic in projection.topics}
        return any(end > there.get(t, {}).get(p, 0) for t, of in ends.items() for p, end in of.items())


@asynccontextmanager
async def opened(
    stack: Endpoints,
    folder: Path,
    serve: Callable[..., AbstractAsyncContextManager[Any]],
    log: MemoryLog | None = None,
    **more: Any,
) -> AsyncIterator[World]:
    """Everything but the log is made anew: what is there was folded from it."""
    schema, log, dsn = f"t{uuid4().hex[:12]}", log or MemoryLog(), stack.postgres_dsn
    assert dsn is not None
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database,
        Driver(log, FOLDED) as driver,
        PostgresSink(dsn, FOLDED, schema) as sink,
        log.subscribe(
            f"sink-{schema}", sorted(f"rillfold-{p.name}-v{p.version}-changelog" for p in FOLDED)
        ) as subscription,
        Reads(dsn, schema) as reads,
        serve(folder, log, reads=reads, **more) as api,
    ):
        await database.execute(f'SET search_path TO "{schema}"')
        yield World(api, driver, Follower(sink, FOLDED), subscription, database)
        await database.execute(f'DROP SCHEMA "{schema}" CASCADE')
