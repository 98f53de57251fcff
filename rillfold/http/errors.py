"""One shape for every error: {"error": {"code", "message", "detail"}}; below /v1 with `type` and `param` beside."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from schemas.errors import Poison, Retry, RillfoldError
from schemas.rejected import Unusable

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that is not 2xx. `code` is for machines, `message` says what to do."""

    param: str | None = None
    """Which part of the request is wrong, where it is one."""

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


def kind_of(status: int) -> str:
    """As OpenAI calls it."""
    return "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"


def answer(
    body: dict[str, Any], status: int, path: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """`body` as `shape` makes it. Whoever asks below /v1 reads errors as OpenAI writes them."""
    if path.startswith("/v1/"):
        body = {"error": {**body["error"], "type": kind_of(status), "param": param}}
    return JSONResponse(body, status, headers=headers)


def answer_of(error: Exception, path: str = "") -> JSONResponse:
    """Total. 503 is the world's fault and says when to come again; 500 is a fault of ours and should not exist."""
    if isinstance(error, ApiError):
        body = shape(error.code, error.message, error.detail)
        return answer(body, error.status, path, error.param, error.headers)
    status, code, message, wait = _told(error)
    return answer(shape(code, message), status, path, headers={"Retry-After": wait} if wait else None)


def _told(error: Exception) -> tuple[int, str, str, str | None]:
    """(status, code, message, after how many seconds to come again)"""
    match error:
        case Unusable():
            return 422, error.reason, error.detail, None
        case Poison():
            return 422, "refused", str(error), None
        case RecursionError():
            return 422, "too_deep", "The request is nested deeper than anything here is.", None
        case Retry():
            return 503, "try_again", str(error), "1"
        case RillfoldError() | OSError() | MemoryError():
            log.error("stopped by %r", error)
            return 503, "stopped", "The server needs a person's attention; its log says why.", "30"
    # The server's own log has the trace.
    return 500, "internal", "The server failed at this; its log says why.", None
