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
ANSWER_SECONDS = 2.0
"""What takes longer does not answer."""
KNOWN_SECONDS = 5.0
"""So old may be what is told while they are being asked."""


class Readiness(BaseModel):
    ready: bool
    failing: dict[str, str]
    """What does not answer. The server's log says why: here anybody may ask."""


class Reachable:
    """What does not answer now. Nobody waits for an answer that another has asked for, where one is known."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._asking: asyncio.Task[None] | None = None
        self._found, self._at = dict[str, str](), float("-inf")

    async def failing(self) -> dict[str, str]:
        age = time.monotonic() - self._at
        if age < SECONDS or (self._asking and age < KNOWN_SECONDS):
            return self._found
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)
        return self._found

    async def _ask(self) -> None:
        given = self._services
        checks = {"log": given.log.ends(given.names.wire("company-data")), "database": given.reads.ping()}
        try:
            answered = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
            self._found = {name: "does not answer" for name, does in zip(checks, answered, strict=True) if not does}
            self._at = time.monotonic()
        finally:
            self._asking = None


async def _answers(name: str, check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await check
    except (RillfoldError, TimeoutError) as error:
        log.warning("not ready: the %s does not answer: %s", name, str(error) or f"nothing in {ANSWER_SECONDS:.0f} s")
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
