"""Files of rows, as JSON lines or CSV, to what a producer takes. Bounded memory whatever the size of the file."""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec

from schemas.codec.catalog import catalog, classes, kind_of
from schemas.envelope import derived_id
from schemas.errors import Stop
from schemas.near import meant
from schemas.rejected import Unusable
from schemas.topics import Topic, events_on

MAX_ROW_BYTES = 4 << 20
"""A longer row cannot become a record that fits: it is refused without being kept."""
OF_AGENT = re.compile(r"(?P<agent>.+)_outputs\.jsonl?")
BOM = b"\xef\xbb\xbf"


class FileRow(NamedTuple):
    """`line` is where it begins, from 1. `text` is None where the row was too long to keep. `entry`: of an array."""

    line: int
    text: bytes | None
    entry: int | None = None


def whole(row: FileRow) -> bytes:
    """Raises `Unusable` where it was not kept."""
    if row.text is None:
        raise Unusable("too_large", f"the row is longer than {MAX_ROW_BYTES} bytes")
    return row.text


def agent_of(file: str) -> str | None:
    """Whose outputs a file holds, by its name."""
    found = OF_AGENT.fullmatch(file)
    return found["agent"] if found else None


class Fields(Protocol):
    """The fields of an event that a row's bytes hold; raises `Unusable`."""

    def __call__(self, text: bytes) -> dict[str, Any]: ...


class NoColumns(Stop):
    """A table whose first row says of no column, or of two, which field it holds."""


class Rows:
    """Cuts chunks of bytes into rows. In CSV a row goes on over line ends while a quote is open."""

    def __init__(self, *, quoted: bool) -> None:
        self._quoted = quoted
        self._parts: list[bytes] = []
        self._size = 0
        self._odd = False
        self._line = 1
        self._begun = 1

    def feed(self, chunk: bytes) -> Iterator[FileRow]:
        for part in _lines(chunk):
            self._keep(part)
            if not part.endswith(b"\n"):
                return
            self._line += 1
            if not self._odd:
                yield from self.close()

    def close(self) -> Iterator[FileRow]:
        """What the file's last line has without a line end."""
        text = b"".join(self._parts).rstrip(b"\r\n") if self._size <= MAX_ROW_BYTES else None
        begun, self._begun = self._begun, self._line
        self._parts, self._size, self._odd = [], 0, False
        if text is None or text.strip():
            yield FileRow(begun, text)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._quoted and part.count(b'"') % 2:
            self._odd = not self._odd
        if self._size <= MAX_ROW_BYTES:
            self._parts.append(part)
        else:
            # Perhaps a quote that nobody closed: the row is lost, the file is not.
            self._parts, self._odd = [], False


def _lines(chunk: bytes) -> list[bytes]:
    """`bytes.splitlines` would also end a line at a lone carriage return."""
    lines = chunk.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


class Ids:
    """Ids for rows that have none: of the same file they are the same again, so that a repeat is known as one.

    A row's id hangs on its company, on the file's name and on everything in the file up to the end of the row.
    Appending to the file changes no id; a change inside changes those from there on. See docs/adr/0006 and 0012.
    """

    def __init__(self, name: str) -> None:
        self._before = hashlib.sha256(name.encode() + b"\0")

    def read(self, row: FileRow) -> None:
        self._before.update(b"too long" if row.text is None else row.text)
        self._before.update(b"\n")

    def last(self, company: object) -> str:
        """Of the row that was read last. No company has a slash: two of them never meet."""
        return derived_id(f"{company}/{self._before.hexdigest()}", "row")


def header_of(row: FileRow, topic: Topic, defaults: Mapping[str, str]) -> list[str]:
    """The names in a table's first row. Raises `NoColumns` where it names no columns: it may be a row like the others,
    which nobody would miss."""
    header = csv_cells(whole(row))
    if len(header) == 1 and (odd := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise NoColumns(
            f"The header row {header[0]!r:.200} is one column, with {odd!r} in it: commas part columns here. "
            "Save the file so, or send JSON lines."
        )
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise NoColumns(f"The header row names {', '.join(twice):.200} twice: one of its cells would be lost.")
    # Rows may name events of their own; without any, each is refused for that.
    given = None if "type" in header else defaults.get("type")
    known = _fields_of([given] if given else [kind_of(event).type for event in events_on(topic)])
    if unknown := [name for name in header if name and name not in known]:
        raise NoColumns(
            f"The header row names {', '.join(map(repr, unknown)):.200}: no field of "
            f"{given or f'events of {topic.name}'}.{meant(unknown[0], known)} Fields are: {', '.join(sorted(known))}. "
            "If this is a row already, write a row of names before it. Nothing was sent."
        )
    return header


def _fields_of(types: Sequence[str]) -> set[str]:
    """Of each version: rows of an old one are lifted."""
    old = [stored.source["fields"] for kind, stored in catalog().by_kind.items() if kind.type in types]
    new = [classes()[type_].__struct_fields__ for type_ in types]
    return {field["name"] for fields in old for field in fields}.union(*new)


class CsvFields:
    """Cells under the names of a header row. Empty cells are absent; numbers, booleans and JSON are read as such."""

    def __init__(self, header: Sequence[str], defaults: Mapping[str, str]) -> None:
        self._header = header
        self._defaults = defaults

    def __call__(self, text: bytes) -> dict[str, Any]:
        cells = csv_cells(text)
        if len(cells) != len(self._header):
            raise Unusable("wrong_type", f"{len(cells)} cells under {len(self._header)} columns")
        given = {**self._defaults, **{name: cell for name, cell in zip(self._header, cells, strict=True) if cell}}
        kinds = _kinds(given.get("type", ""))
        return {name: _typed(name, cell, kinds.get(name, str)) for name, cell in given.items()}


def csv_cells(text: bytes) -> list[str]:
    try:
        (cells,) = csv.reader([text.removeprefix(BOM).decode()], strict=True)
    except UnicodeDecodeError as error:
        raise Unusable("bad_utf8", str(error)) from error
    except (csv.Error, ValueError) as error:
        raise Unusable("invalid_csv", str(error)) from error
    return cells


@cache
def _kinds(type_: str) -> Mapping[str, Any]:
    """Field name to its type without None, for the event of that name."""
    hints = get_type_hints(classes()[type_]) if type_ in classes() else {}
    unions = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) in (Union, UnionType)}
    return {**hints, **{name: next(arg for arg in args if arg is not NoneType) for name, args in unions.items()}}


def _typed(name: str, cell: str, kind: Any) -> Any:
    if kind is str:
        return cell
    try:
        if kind in (int, float, bool):
            return msgspec.convert(cell, kind, strict=False)
        return msgspec.json.decode(cell)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unusable("wrong_type", f"column {name}: {error}") from error
