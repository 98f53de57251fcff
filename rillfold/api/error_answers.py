"""Every error of the API in its one shape, as an answer and in the documentation."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from rillfold.http.errors import ApiError, answer, answer_of, shape
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
    async def any_error(request: Request, error: Exception) -> JSONResponse:
        return answer_of(error, request.url.path)

    for kind in (ApiError, RillfoldError, RecursionError, OSError, MemoryError, Exception):
        app.add_exception_handler(kind, any_error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, never the input: it may hold a credential.
        wrong = [(_where(each["loc"]), each["msg"]) for each in error.errors()[:WRONGS]]
        detail = [{"where": where, "why": why} for where, why in wrong]
        param = ".".join(map(str, wrong[0][0][1:])) or None if wrong else None
        first = f" {param}: {wrong[0][1]}." if param else ""
        told = f"The request does not have the documented form.{first}"
        return answer(shape("invalid_request", told, detail), 422, request.url.path, param)

    @app.exception_handler(TooManyValues)
    async def too_many(request: Request, error: TooManyValues) -> JSONResponse:
        return answer(shape("too_many_values", error.detail), error.status_code, request.url.path)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        body = shape(phrase.lower().replace(" ", "_"), phrase)
        return answer(body, error.status_code, request.url.path, headers=error.headers)


def _where(steps: tuple[int | str, ...]) -> list[int | str]:
    return [step[:WHERE_CHARS] if isinstance(step, str) else step for step in steps]
