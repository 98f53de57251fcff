"""One shape for every error: {"error": {"code", "message", "detail"}}."""

import logging
from typing import Any

from starlette.responses import JSONResponse

from schemas.errors import Poison, Retry, RillfoldError
from schemas.rejected import Unusable

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
