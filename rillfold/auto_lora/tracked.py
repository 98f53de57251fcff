"""Runs of a loop whose log ends with the process, noted in MLflow beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rillfold.auto_lora.history import Say
from rillfold.settings import Settings
from rillfold.wiring import mlflow
from schemas.topics import TopicNames
from streams.log.port import EventLog
from streams.tracking.follower import RunFollower

LAST_SECONDS = 10.0
"""So long the end of a loop waits for MLflow."""
LOOK_SECONDS = 0.05


@asynccontextmanager
async def noted(log: EventLog, names: TopicNames, settings: Settings, say: Say) -> AsyncIterator[None]:
    """Nothing waits for MLflow but the very end, and that not for long."""
    if settings.mlflow_url is None:
        yield
        return
    async with mlflow(settings) as there:
        follower = RunFollower(log, names, there)
        following = asyncio.create_task(follower.run())
        try:
            yield
        finally:
            if not await _through(follower, following):
                say(f"MLflow at {there.url} has not taken all that is to be noted of these runs.")
            following.cancel()
            await asyncio.wait([following])


async def _through(follower: RunFollower, following: asyncio.Task[None]) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            while not following.done():
                if not await follower.behind():
                    return not follower.passed_over
                await asyncio.sleep(LOOK_SECONDS)
    return False
