"""Sends a file of rows to a topic: read, validate, send, count. Rejected rows are kept beside the file."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from processors.tuning.turns import ROLES, shown
from rillfold.produce.outputs import OutputFields, OutputRows
from rillfold.produce.rows import CsvFields, Fields, FileRow, Ids, Rows, header_of, whole
from schemas.codec.json_form import json_fields
from schemas.errors import Poison, RillfoldError, Stop
from schemas.rejected import Unusable
from schemas.topics import Topic, TopicNames
from streams.log.kafka.producer import SLICE, Pipeline
from streams.log.outgoing import record_of
from streams.log.port import EventLog, Outgoing

CONVERSATION = "conversation.ingested"
CHUNK = 256 << 10
OUTPUTS = "outputs"
FORMS = ("jsonl", "csv", OUTPUTS)


class Imported(msgspec.Struct, kw_only=True):
    """What `rillfold produce` reports. `sent` counts what the log has acknowledged."""

    topic: str
    rows: int = 0
    sent: int = 0
    rejected: int = 0
    rejects_file: str | None = None
    first_reject: str | None = None
    """Its line and why, in words: of a file of another kind it says enough."""
    seconds: float = 0.0
    rows_per_second: float = 0.0
    stopped: str | None = None
    """Why it ended before the file did."""


class RowsUnread(Stop):
    """The rest of the rows is out of reach, such as behind a descriptor that was opened for writing."""


class Source:
    """The bytes of a file or a pipe. `stop` ends it at the next chunk, also while a pipe is silent."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pipe: asyncio.StreamReader | None = None
        self._stopped = False
        self.cut = False
        """Stopped before its end: its last row may not be whole."""
        # A pipe hands on what is there, at once; a file can wait for full batches.
        self.live = _keeps_waiting(stream.fileno())

    def stop(self) -> None:
        self._stopped = True
        if self._pipe is not None:
            self._pipe.feed_eof()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        transport = await self._listen() if self.live else None
        try:
            while not self._stopped and (chunk := await self._next()):
                yield chunk
            self.cut = self._stopped
        finally:
            if transport is not None:
                # A terminal is shared with whoever prints on it.
                os.set_blocking(self._stream.fileno(), True)
                transport.close()

    async def _next(self) -> bytes:
        try:
            return self._stream.read(CHUNK) if self._pipe is None else await self._pipe.read(CHUNK)
        except OSError as error:
            raise RowsUnread(
                f"{self._stream.name} cannot be read on ({error.strerror}): give it another way."
            ) from error

    async def _listen(self) -> asyncio.BaseTransport:
        self._pipe = asyncio.StreamReader(CHUNK)
        protocol = asyncio.StreamReaderProtocol(self._pipe)
        # The transport closes what it is given, and this stream is not ours to close.
        own = os.fdopen(os.dup(self._stream.fileno()), "rb", buffering=0)
        return (await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, own))[0]


def _keeps_waiting(descriptor: int) -> bool:
    """By what it is: asked to listen to anything else, such as /dev/null, the event loop fails where nobody hears it,
    and the reader waits for ever."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


class RejectsUnkept(Stop):
    """A rejected row is on no disk."""


class Rejects:
    """One JSON line a rejected row: where it stood, why, and what it said. The file appears with the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def add(self, row: FileRow, reason: str, detail: str) -> None:
        text = None if row.text is None else row.text.decode("utf-8", "backslashreplace")
        entry = {} if row.entry is None else {"entry": row.entry}
        line = {"line": row.line, **entry, "reason": reason, "detail": detail, "row": text}
        with self._writing():
            self._file = self._file or self.path.open("wb", buffering=0)
            self._file.write(msgspec.json.encode(line) + b"\n")

    def beside(self, source: BinaryIO) -> Self:
        """Before the first row is sent: can they be kept, and elsewhere than in the rows themselves?"""
        with self._writing():
            there = self.path.exists()
            with self.path.open("ab") as file:
                same = os.path.sameopenfile(file.fileno(), source.fileno())
            if not there:
                self.path.unlink()
        if same:
            raise RejectsUnkept(f"{self.path} is the file of rows itself: name another one by --rejects.")
        return self

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RejectsUnkept(
                f"{self.path}: rejected rows cannot be kept there ({error.strerror}): name another file by --rejects."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class Import:
    """One file on its way into one topic."""

    def __init__(
        self,
        topic: Topic,
        names: TopicNames,
        log: EventLog,
        rejects: Rejects,
        defaults: Mapping[str, str],
        agent: str | None = None,
    ) -> None:
        """`agent`: whose outputs a file of them holds."""
        self.outcome = Imported(topic=names.wire(topic.name))
        self._topic, self._names, self._rejects = topic, names, rejects
        self._defaults, self._agent = defaults, agent
        self._pipeline = Pipeline(log)

    async def run(self, source: Source, name: str, form: str, advanced: Callable[[int], None]) -> Imported:
        """`form` is one of FORMS. `advanced` hears of every chunk's size."""
        begun, out = time.monotonic(), self.outcome
        try:
            await self._send_all(source, name, form, advanced)
        except RillfoldError as error:
            out.stopped = str(error)
        out.seconds = round(time.monotonic() - begun, 3)
        out.rows_per_second = round(out.sent / max(out.seconds, 0.001), 1)
        out.rejects_file = str(self._rejects.path) if out.rejected else None
        return out

    async def _send_all(self, source: Source, name: str, form: str, advanced: Callable[[int], None]) -> None:
        ids, rows = Ids(name), OutputRows(name) if form == OUTPUTS else Rows(quoted=form == "csv")
        known: dict[str, Fields] = {"jsonl": json_fields, OUTPUTS: OutputFields(self._agent)}
        fields = known.get(form)
        async with aclosing(source.chunks()) as chunks:
            while chunk := await anext(chunks, b""):
                fields = await self._send(rows.feed(chunk), ids, fields, at_once=source.live)
                advanced(len(chunk))
        await self._send(iter(()) if source.cut else rows.close(), ids, fields, at_once=True)

    async def _send(self, rows: Iterator[FileRow], ids: Ids, fields: Fields | None, *, at_once: bool) -> Fields | None:
        """Without `fields` the first row is a header, which makes them."""
        prepared: list[Outgoing] = []
        for row in rows:
            ids.read(row)
            if fields is None:
                fields = CsvFields(header_of(row, self._topic, self._defaults), self._defaults)
                continue
            prepared += self._prepared(row, fields, ids)
            if len(prepared) >= SLICE:
                self.outcome.sent += len(await self._pipeline.put(prepared))
                prepared = []
        self.outcome.sent += len(await self._pipeline.put(prepared))
        if at_once:
            self.outcome.sent += len(await self._pipeline.flush())
        return fields

    def _prepared(self, row: FileRow, fields: Fields, ids: Ids) -> list[Outgoing]:
        """One record, or none and a line among the rejects."""
        self.outcome.rows += 1
        try:
            return [self._record(row, fields, ids)]
        except Poison as error:
            reason, detail = _why(error)
        self.outcome.rejected += 1
        self.outcome.first_reject = self.outcome.first_reject or f"line {row.line}: {reason}: {detail}"
        self._rejects.add(row, reason, detail)
        return []

    def _record(self, row: FileRow, fields: Fields, ids: Ids) -> Outgoing:
        given = with_roles({**self._defaults, **fields(whole(row))})
        own = partial(ids.last, given.get("company"))
        record = record_of(given, own, time.time_ns() // 1000, self._names)
        if record.topic != self.outcome.topic:
            raise Unusable("wrong_topic", f"{given['type']} belongs to {record.topic}")
        return record


def with_roles(given: dict[str, Any]) -> dict[str, Any]:
    """A conversation's roles go by the names that a file of an agent's outputs may use, and no other: the log would
    take any, and nobody would learn from it."""
    messages = given.get("messages")
    if given.get("type") != CONVERSATION or not isinstance(messages, list):
        return given
    for n, message in enumerate(messages):
        if isinstance(message, dict) and isinstance(role := message.get("role"), str) and role not in ROLES:
            raise Unusable("unknown_role", f"messages[{n}]: the role {shown(role)} is none of {', '.join(ROLES)}.")
    return given | {"messages": [_named(message) for message in messages]}


def _named(message: object) -> object:
    if not isinstance(message, dict) or not isinstance(role := message.get("role"), str):
        return message
    return message | {"role": ROLES[role]}


def _why(error: Poison) -> tuple[str, str]:
    if isinstance(error, Unusable):
        return error.reason, error.detail
    return "too_large", str(error)
