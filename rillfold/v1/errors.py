"""What goes wrong, in OpenAI's shape."""

from math import ceil
from typing import Any

from fastapi.responses import JSONResponse

from gpu_workers.serve.port import Failure
from rillfold.http.errors import kind_of

# reason -> HTTP status; OpenAI's clients retry 429 and 5xx, and nothing else.
STATUS = {
    "unknown_adapter": 404,
    "unknown_adapter_version": 404,
    "adapter_withdrawn": 409,
    "not_promoted": 409,
    "base_mismatch": 409,
    "unusable_adapter": 409,
    "prompt_too_long": 400,
    "too_long": 400,
    "bad_question": 400,
    "not_finite": 409,
    "queue_full": 429,
    "too_fast": 429,
    "adapter_unreadable": 503,
    "engine_stopped": 503,
}
LONGEST_WAIT = 3_600
"""Seconds. Nobody is told to come again later than that."""


class BadRequest(Exception):
    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


def failed(failure: Failure) -> JSONResponse:
    status = _status(failure)
    headers = {"Retry-After": retry_after(failure.wait)} if failure.again or status == 503 else None
    return JSONResponse(of_failure(failure), status, headers=headers)


def of_failure(failure: Failure) -> dict[str, Any]:
    """The same whole and at the end of a stream."""
    status = _status(failure)
    code, param = ("model_not_found", "model") if status == 404 else (failure.reason, None)
    return openai_error(failure.detail, code, param, status)


def _status(failure: Failure) -> int:
    return STATUS.get(failure.reason, 503 if failure.again else 422)


def retry_after(seconds: float) -> str:
    """Whole seconds, one at least."""
    return str(max(1, ceil(min(seconds, LONGEST_WAIT))))


def error(
    status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(openai_error(message, code, param, status), status, headers=headers)


def openai_error(message: str, code: str, param: str | None = None, status: int = 503) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind_of(status), "param": param, "code": code}}
