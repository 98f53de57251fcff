"""Every error of the API in its one shape, as an answer and in the documentation."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from rillfold.http.errors import ApiError, answer_of, shape
from rillfold.http.strict_json import TooManyValues
from schemas.errors import RillfoldError

WRONGS = 20
"""So many faults of one request are named."""
WHERE_CHARS = 80


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
