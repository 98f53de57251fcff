"""Is it alive, may it be sent traffic, and what does it count?"""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from rillfold.http.access import Serving
from schemas.errors import RillfoldError

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    ready: bool
    failing: dict[str, str]
    """What does not answer, and why."""


@router.get("/health")
async def health() -> dict[str, bool]:
    """The process answers."""
    return {"alive": True}


@router.get("/ready")
async def ready(serving: Serving, response: Response) -> Readiness:
    """503 while the log or the database does not answer: writes or queries would fail."""
    checks = {"log": serving.log.ends(serving.names.wire("company-data")), "database": serving.reads.ping()}
    failing = {name: why for name, check in checks.items() if (why := await _why(check))}
    response.status_code = 503 if failing else 200
    return Readiness(ready=not failing, failing=failing)


async def _why(check: Awaitable[object]) -> str | None:
    try:
        await check
    except RillfoldError as error:
        return str(error)
    return None


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
