"""Is it alive, and may it be sent traffic?"""

import asyncio
import logging
import time
from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from rillfold.wiring import Services
from schemas.errors import RillfoldError

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])
SECONDS = 1.0
"""Everybody may ask: the log and the database are asked once in so long."""


class Readiness(BaseModel):
    ready: bool
    failing: dict[str, str]
    """What does not answer. The server's log says why: here anybody may ask."""


class Reachable:
    """What does not answer now. Whoever asks meanwhile gets the same answer."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._asking = asyncio.Lock()
        self._found, self._at = dict[str, str](), float("-inf")

    async def failing(self) -> dict[str, str]:
        async with self._asking:
            if time.monotonic() - self._at >= SECONDS:
                self._found, self._at = await self._ask(), time.monotonic()
            return self._found

    async def _ask(self) -> dict[str, str]:
        given = self._services
        checks = {"log": given.log.ends(given.names.wire("company-data")), "database": given.reads.ping()}
        return {name: "does not answer" for name, check in checks.items() if not await _answers(name, check)}


async def _answers(name: str, check: Awaitable[object]) -> bool:
    try:
        await check
    except RillfoldError as error:
        log.warning("not ready: the %s does not answer: %s", name, error)
        return False
    return True


@router.get("/health")
async def health() -> dict[str, bool]:
    """The process answers."""
    return {"alive": True}


@router.get("/ready", responses={503: {"model": Readiness, "description": "Something does not answer."}})
async def ready(request: Request, response: Response) -> Readiness:
    """503 while the log or the database does not answer: writes or queries would fail."""
    standing = request.app.state.standing
    assert isinstance(standing, Reachable)
    failing = await standing.failing()
    if failing:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Readiness(ready=not failing, failing=failing)
