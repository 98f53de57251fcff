"""Files that companies uploaded to train on: one row each, kept after the file is deleted."""

import msgspec

from projections.projection import Projection
from schemas.company import FileDeleted, FileUploaded
from schemas.envelope import Event
from schemas.training import OffsetRange


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The first event that says the file is whole stands. What was sent without one is of no file."""

    company: str
    file: str
    name: str = ""
    purpose: str = ""
    method: str = ""
    """supervised or dpo."""
    size: int = 0
    """Bytes."""
    sha256: str = ""
    lines: int = 0
    ranges: tuple[OffsetRange, ...] = ()
    """Where its events stand, among others."""
    created_at: int = 0
    deleted: bool = False


def key(event: Event) -> str | None:
    return f"{event.company}/{event.entity}" if isinstance(event, FileUploaded | FileDeleted) else None


def initial(row: str) -> UploadedFile:
    company, _, file = row.partition("/")
    return UploadedFile(company=company, file=file)


def fold(state: UploadedFile, event: Event) -> UploadedFile:
    """One that was never whole has nothing to delete."""
    if isinstance(event, FileDeleted):
        return msgspec.structs.replace(state, deleted=True) if state.created_at and not state.deleted else state
    assert isinstance(event, FileUploaded)
    return state if state.created_at else _uploaded(state, event)


def _uploaded(state: UploadedFile, event: FileUploaded) -> UploadedFile:
    return msgspec.structs.replace(
        state,
        name=event.name,
        purpose=event.purpose,
        method=event.method,
        size=event.size,
        sha256=event.sha256,
        lines=event.lines,
        ranges=event.ranges,
        created_at=event.time,
    )


FILES = Projection(
    name="files", version=1, topics=("company-data",), state=UploadedFile, key=key, initial=initial, fold=fold
)
