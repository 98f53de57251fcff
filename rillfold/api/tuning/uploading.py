"""A file on its way into the log: looked at whole before the first event, and said to be there by the last one."""

import asyncio
import secrets
from collections.abc import Iterator
from hashlib import sha256
from typing import IO, NamedTuple

from processors.tuning import said
from processors.tuning.lines import LINE_BYTES, SUPERVISED, FileRefused, taught
from processors.tuning.names import FILE_PREFIX, NAME_BYTES, new_name
from projections.tuning.files import FILES, UploadedFile
from rillfold.event_log import now
from rillfold.wiring import Services
from schemas.company import FileUploaded
from schemas.envelope import Event
from schemas.errors import Poison
from schemas.rejected import Unusable
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from schemas.words import shortened
from streams.log.outgoing import to_outgoing
from streams.log.port import Outgoing, Position, size_of

PART_BYTES = 256 << 10
"""With the line that goes over it, a part still fits into a record."""
APPENDED_BYTES, APPENDED = 1 << 20, 500


class Looked(NamedTuple):
    """What a file is, that was read from its first byte to its last."""

    method: str
    size: int
    sha256: str
    lines: int


async def keep(serving: Services, company: str, name: str, file: IO[bytes]) -> UploadedFile:
    """Returns when the file stands in the log. Raises `FileRefused` before anything of it does.

    Broken off in between, no `file.uploaded` follows what was written: it is of no file.
    """
    at = now()
    id_ = new_name(FILE_PREFIX, at, secrets.token_hex(4))
    draft = said.FileDraft(company=company, file=id_, name=shortened(name, NAME_BYTES), now=at)
    async with serving.uploads.turn(company):
        looked = await asyncio.to_thread(look, file, draft, serving.names)
        ranges = await _append(serving, file, draft)
    whole = said.uploaded(draft, looked.method, looked.size, looked.sha256, looked.lines, ranges)
    await serving.log.append([to_outgoing(whole, serving.names)])
    return _row(whole)


def look(file: IO[bytes], draft: said.FileDraft, names: TopicNames) -> Looked:
    """Every event is made once, as it will be written, so that the log has to refuse none."""
    digest, size, lines, method, at = sha256(), 0, 0, SUPERVISED, None
    for raw in _cut(file):
        digest.update(raw)
        size += len(raw)
    try:
        for line, event in _events(file, draft):
            lines += line != at
            at = line
            method = said.method_of(event) or method
            to_outgoing(event, names)
    except FileRefused:
        raise
    except Poison as error:
        reason = error.reason if isinstance(error, Unusable) else "too_long"
        raise FileRefused(reason, str(error), at) from None
    return Looked(method, size, digest.hexdigest(), lines)


def _events(file: IO[bytes], draft: said.FileDraft) -> Iterator[tuple[int, Event]]:
    """With the line that each is made of: what the line teaches, and the file's own words after it."""
    parts = _Parts(draft)
    last = 0
    for one in taught(parts.passed_on(_cut(file))):
        last = one.line
        for event in said.of_line(draft, one):
            yield last, event
        if parts.size >= PART_BYTES:
            yield last, parts.take()
    if parts.size:
        yield last, parts.take()


class _Parts:
    """The lines that went by, until they make a part."""

    def __init__(self, draft: said.FileDraft) -> None:
        self._draft, self._taken, self._lines = draft, 0, list[bytes]()
        self.size = 0

    def passed_on(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for raw in lines:
            self._lines.append(raw)
            self.size += len(raw)
            yield raw

    def take(self) -> Event:
        text = b"".join(self._lines).decode()
        self._lines, self.size, self._taken = [], 0, self._taken + 1
        return said.part(self._draft, self._taken - 1, text)


def _cut(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while raw := file.readline(LINE_BYTES + len(b"\r\n") + 1):
        yield raw


async def _append(serving: Services, file: IO[bytes], draft: said.FileDraft) -> tuple[OffsetRange, ...]:
    """All of a file has one key, so all of it is in one partition."""
    records = (to_outgoing(event, serving.names) for _, event in _events(file, draft))
    positions: list[Position] = []
    while batch := await asyncio.to_thread(_batch, records):
        found = await serving.log.append(batch)
        positions = [positions[0] if positions else found[0], found[-1]]
    first, last = positions
    topic = serving.names.ours(first.topic)
    return (OffsetRange(topic=topic, partition=first.partition, start=first.offset, stop=last.offset + 1),)


def _batch(records: Iterator[Outgoing]) -> list[Outgoing]:
    found, size = list[Outgoing](), 0
    for record in records:
        found.append(record)
        size += size_of(record)
        if size >= APPENDED_BYTES or len(found) >= APPENDED:
            break
    return found


def _row(whole: FileUploaded) -> UploadedFile:
    """As the projection will have it."""
    key = FILES.key(whole)
    assert key is not None
    return FILES.fold(FILES.initial(key), whole)
