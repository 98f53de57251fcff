"""Answers of this door that are no success, in OpenAI's words."""

from typing import Any

from processors.tuning.lines import FileRefused
from rillfold.http.errors import ApiError


class WrongPart(ApiError):
    """A part of the request is wrong, by its name."""

    def __init__(self, param: str, code: str, message: str, status: int = 400, detail: Any = None) -> None:
        super().__init__(status, code, message, detail)
        self.param = param


def refused(error: FileRefused) -> WrongPart:
    """`line`: where it stands in the file, from 1."""
    param = "purpose" if error.reason == "bad_purpose" else "file"
    return WrongPart(param, error.reason, str(error), detail=None if error.line is None else {"line": error.line})


def no_file(name: str, param: str | None = None) -> WrongPart:
    told = (
        f"There is no file {name[:80]!r} here, or it is not yours. One that was just sent is there as soon as its "
        "status is processed."
    )
    return WrongPart(param or "file_id", "not_found", told, 400 if param else 404)
