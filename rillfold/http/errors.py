"""One shape for every error: {"error": {"code", "message", "detail"}}."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from schemas.errors import Poison, Retry, RillfoldError

log = logging.getLogger(__name__)


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


def shape(code: str, message: str, detail: Any = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "detail": detail}}


def install(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(shape(error.code, error.message, error.detail), error.status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, never the input: it may hold a credential.
        wrong = [{"where": list(each["loc"]), "why": each["msg"]} for each in error.errors()]
        return JSONResponse(
            shape("invalid_request", "The request does not have the documented form.", jsonable_encoder(wrong)), 422
        )

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        return JSONResponse(shape(phrase.lower().replace(" ", "_"), phrase), error.status_code, headers=error.headers)

    @app.exception_handler(RillfoldError)
    async def known(_: Request, error: RillfoldError) -> JSONResponse:
        match error:
            case Retry():
                return JSONResponse(shape("try_again", str(error)), 503, headers={"Retry-After": "1"})
            case Poison():
                return JSONResponse(shape("refused", str(error)), 422)
        log.error("stopped by %s", error)
        return JSONResponse(shape("stopped", "The server needs a person's attention; its log says why."), 500)

    @app.exception_handler(Exception)
    async def unknown(_: Request, __: Exception) -> JSONResponse:
        # The server's own log has the trace.
        return JSONResponse(shape("internal", "The server failed at this; its log says why."), 500)
