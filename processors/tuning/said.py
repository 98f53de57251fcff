"""The events that a file becomes: its own words, what each line teaches, and at last that it stands whole."""

from collections.abc import Iterator
from typing import Any

import msgspec

from processors.tuning.lines import DPO, Taught
from schemas.company import ConversationIngested, FeedbackGiven, FileDeleted, FilePart, FileUploaded
from schemas.envelope import Event, derived_id
from schemas.training import OffsetRange

AGENT = "tuning"
"""Of every conversation of every file: the same file twice gives the same rows."""
PURPOSE = "fine-tune"


class FileDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is on its way into the log."""

    company: str
    file: str
    name: str
    now: int

    def envelope(self, what: str) -> dict[str, Any]:
        fields = {"company": self.company, "time": self.now, "correlation": self.file, "entity": self.file}
        return fields | {"id": derived_id(f"{self.company}/{self.file}", what)}


def of_line(draft: FileDraft, one: Taught) -> Iterator[Event]:
    talk = ConversationIngested(**draft.envelope(f"line/{one.line}"), agent=AGENT, messages=one.messages)
    yield talk
    if one.preferred is not None:
        turn, fields = len(one.messages) - 1, draft.envelope(f"preferred/{one.line}")
        yield FeedbackGiven(**fields, about=talk.id, turn=turn, correction=one.preferred, by=draft.file)


def method_of(event: Event) -> str | None:
    """None: the event alone does not tell."""
    return DPO if isinstance(event, FeedbackGiven) else None


def part(draft: FileDraft, number: int, text: str) -> FilePart:
    return FilePart(**draft.envelope(f"part/{number}"), part=number, text=text)


def uploaded(
    draft: FileDraft, method: str, size: int, sha256: str, lines: int, ranges: tuple[OffsetRange, ...]
) -> FileUploaded:
    """Said last: what is not followed by it is of no file."""
    return FileUploaded(
        **draft.envelope("uploaded"),
        name=draft.name,
        purpose=PURPOSE,
        method=method,
        size=size,
        sha256=sha256,
        lines=lines,
        ranges=ranges,
    )


def deleted(company: str, file: str, now: int, reason: str = "") -> FileDeleted:
    draft = FileDraft(company=company, file=file, name="", now=now)
    return FileDeleted(**draft.envelope("deleted"), reason=reason)
