"""An event that a projection cannot take: named, kept beside the rows, and skipped, for this projection alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from projections.projection import Projection
from schemas.envelope import Event
from schemas.errors import Poison

REFUSALS: Mapping[str, str] = {
    "raised": "The projection's key, fold or react raised for this event.",
    "bad_key": "The row's key does not begin with the event's company, or is longer than 1,000 bytes.",
    "bad_row": "The row that stands there, or would, cannot be written as JSON and read again.",
    "row_too_large": "The event's rows are above what one record batch holds.",
    "bad_output": "What follows from the event is no event of its company, does not fit its schema, or is too large.",
}
"""Every reason for which a projection refuses an event: machine readable, and what it means."""

KEY_BYTES = 1_000
"""What an index entry holds in every database that we know, with room."""
SURELY_SHORT = KEY_BYTES // 4
"""A text of so many characters is never longer than KEY_BYTES in UTF-8."""
SAID_CHARS = 300
ROOM_BYTES = 64 << 20


class Untaken(Poison):
    """One of the events at hand cannot be taken. Which one it is, a fold of fewer shows."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, bounded(detail)


class RowsTooLarge(Untaken):
    """The rows of these events fit no record batch."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("row_too_large", f"{size} bytes of rows, above the limit of {limit} for one record batch")


class TooMuchAtOnce(Exception):
    """Of several events. Nothing is wrong with any of them: fewer are folded at a time."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One event that one version of a projection does not take. The next version tries again."""

    topic: str
    partition: int
    offset: int
    projection: str
    version: int
    company: str
    event: str
    """Its id."""
    reason: str
    """One of REFUSALS."""
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.projection} v{self.version} refuses the event at {self.topic}/{self.partition}/{self.offset} "
            f"({self.event} of company {self.company}): {self.reason}, {self.detail}. Nothing else waits for it; "
            f"`rillfold projection refused {self.projection}` lists what was refused, and a new version of the "
            f"projection tries it again."
        )


def refusal(projection: Projection[Any], topic: str, partition: int, offset: int, event: Event, why: Poison) -> Refusal:
    """`why` is `Untaken`, or what the writer or the log said of an event that follows."""
    untaken = why if isinstance(why, Untaken) else Untaken("bad_output", said(why))
    return Refusal(
        topic=topic,
        partition=partition,
        offset=offset,
        projection=projection.name,
        version=projection.version,
        company=event.company,
        event=event.id,
        reason=untaken.reason,
        detail=untaken.detail,
    )


@contextmanager
def blamed_on_events(reason: str = "raised") -> Iterator[None]:
    """What is done in here depends on nothing but events and rows: so it is one of them that raises, not the world."""
    try:
        yield
    except (Untaken, TooMuchAtOnce):
        raise
    except MemoryError as error:
        if not _has_room():
            raise
        raise Untaken(reason, said(error)) from error
    except Exception as error:
        raise Untaken(reason, said(error)) from error


def check_key(key: str, company: str) -> None:
    """Nothing of a company becomes another's row, or a record that is ours."""
    if key != company and not key.startswith(f"{company}/"):
        raise Untaken("bad_key", f"{key[:SAID_CHARS]!r} does not begin with the company {company}")
    if len(key) > SURELY_SHORT and (size := len(key.encode())) > KEY_BYTES:
        raise Untaken("bad_key", f"{size} bytes, above the limit of {KEY_BYTES}")


def said(error: BaseException) -> str:
    """An error in words, whatever its class makes of being asked."""
    try:
        return bounded(f"{type(error).__name__}: {error}")
    except Exception:
        return type(error).__name__


def bounded(text: str, limit: int = SAID_CHARS) -> str:
    """Short, and always UTF-8."""
    return text[:limit].encode("utf-8", "backslashreplace").decode()


def _has_room() -> bool:
    try:
        return bool(bytearray(ROOM_BYTES))
    except MemoryError:
        return False
