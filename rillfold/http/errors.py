"""One shape for every error: {"error": {"code", "message", "detail"}}."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from rillfold.http.strict_json import TooManyValues
from schemas.errors import Poison, Retry, RillfoldError
from schemas.rejected import Unusable

log = logging.getLogger(__name__)
WRONGS = 20
"""So many faults of one request are named."""
WHERE_CHARS = 80


class ApiError(Exception):
    """An answer that is not 2xx. `code` is for machines, `message` says what to do."""

    def __init__(self, status: int, code: str, message: str, detail: Any = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.detail = status, code, message, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class NotFound(ApiError):
    """Absent, or another company's: nobody can tell which."""

    def __init__(self) -> None:
        super().__init__(404, "not_found", "There is no such thing here, or it is not yours.")


class Told(BaseModel):
    """`code` is for machines, `message` says what to do."""

    model_config = ConfigDict(extra="allow")
    code: str | None
    message: str
    detail: Any = None


class ErrorBody(BaseModel):
    error: Told


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


RESPONSES = _documented(400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 503)
"""What any route may answer, for the documentation."""


def shape(code: str, message: str, detail: Any = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "detail": detail}}


def answer_of(error: Exception) -> JSONResponse:
    """Total. 503 is the world's fault and says when to come again; 500 is a fault of ours and should not exist."""
    match error:
        case ApiError():
            body = shape(error.code, error.message, error.detail)
            return JSONResponse(body, error.status, headers=error.headers)
        case Unusable():
            return JSONResponse(shape(error.reason, error.detail), 422)
        case Poison():
            return JSONResponse(shape("refused", str(error)), 422)
        case RecursionError():
            return JSONResponse(shape("too_deep", "The request is nested deeper than anything here is."), 422)
        case Retry():
            return JSONResponse(shape("try_again", str(error)), 503, headers={"Retry-After": "1"})
        case RillfoldError() | OSError() | MemoryError():
            log.error("stopped by %r", error)
            stopped = "The server needs a person's attention; its log says why."
            return JSONResponse(shape("stopped", stopped), 503, headers={"Retry-After": "30"})
    # The server's own log has the trace.
    return JSONResponse(shape("internal", "The server failed at this; its log says why."), 500)


def install(app: FastAPI) -> None:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        return answer_of(error)

    for kind in (ApiError, RillfoldError, RecursionError, OSError, MemoryError, Exception):
        app.add_exception_handler(kind, answer)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, never the input: it may hold a credential.
        wrong = [{"where": _where(each["loc"]), "why": each["msg"]} for each in error.errors()[:WRONGS]]
        return JSONResponse(shape("invalid_request", "The request does not have the documented form.", wrong), 422)

    @app.exception_handler(TooManyValues)
    async def too_many(_: Request, error: TooManyValues) -> JSONResponse:
        return JSONResponse(shape("too_many_values", error.detail), error.status_code)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        return JSONResponse(shape(phrase.lower().replace(" ", "_"), phrase), error.status_code, headers=error.headers)


def _where(steps: tuple[int | str, ...]) -> list[int | str]:
    return [step[:WHERE_CHARS] if isinstance(step, str) else step for step in steps]
