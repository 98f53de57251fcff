"""The records of a record batch, whatever any client has written into it and the broker has taken.

Over a header key that is no UTF-8 aiokafka raises for the whole batch, and would do so for ever: here its bytes are
spelled (`\\xff`), and the record goes on to whoever judges it. A batch that is too large when it is unpacked, or that
cannot be unpacked, is passed over whole: one record stands for it, with its packed bytes, and is refused by name.
"""

from collections.abc import Sequence
from operator import attrgetter, lt
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from schemas.rejected import RefusedValue, Unusable
from streams.log.kafka.packed import LARGE, RECORD, headers, measured, within
from streams.log.port import HEADER_BYTES

LENGTH = 12
"""Bytes of a record batch before those that its length counts."""
HEAD = 61
"""Bytes of a record batch before its records."""
CODEC = 22
_HEADERS, _OFFSET = attrgetter("headers"), attrgetter("offset")


def keep_bytes() -> None:
    """From now on what is fetched keeps its bytes beside the parser, which hides them."""
    fetcher.MemoryRecords = Kept


class Kept(MemoryRecords):  # type: ignore[misc]  # final in its stub, not in truth
    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)
        self._fetched = memoryview(fetched)
        self._next = 0
        self.batch = self._fetched[:0]
        """The bytes of the record batch that was parsed last."""

    def next_batch(self) -> Any:
        at = self._next
        self._next = at + LENGTH + int.from_bytes(self._fetched[at + 8 : at + LENGTH], "big")
        self.batch = self._fetched[at : self._next]
        return super().next_batch()


class WholeBatch(NamedTuple):
    """Stands for the records of a batch that is not opened."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: RefusedValue
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def records_of(fetched: Any, batch: Any) -> tuple[list[Any], int]:
    """The records of a batch that was just parsed from `fetched`, and about how many bytes of memory they take."""
    if not isinstance(fetched, Kept) or batch.magic < 2:
        return list(batch), fetched.size_in_bytes()
    raw = fetched.batch
    try:
        return _opened(raw, batch)
    except Unusable as error:
        value = RefusedValue(raw[HEAD:], error.reason, error.detail)
        return [WholeBatch(batch.base_offset, batch.first_timestamp, batch.timestamp_type, value)], len(raw)


def _numbered(records: Sequence[Any], batch: Any) -> None:
    """The broker numbers packed records anew, and believes what an unpacked batch says of its own: an offset beyond the
    batch would carry a marker over everybody's events."""
    offsets = list(map(_OFFSET, records))
    inside = not offsets or batch.base_offset <= offsets[0] <= offsets[-1] < batch.next_offset
    if not inside or not all(map(lt, offsets, offsets[1:])):
        raise Unusable("malformed", "a record batch whose records have other offsets than their places")


def _opened(raw: memoryview, batch: Any) -> tuple[list[Any], int]:
    count = int.from_bytes(raw[HEAD - 4 : HEAD], "big")
    weight = len(raw) + RECORD * count
    if codec := batch.compression_type:
        size, unpacked = measured(codec, raw[HEAD:])
        weight = within(weight + size)
        if unpacked is not None:
            if size > LARGE:
                within(weight + HEADER_BYTES * headers(unpacked, count))
            raw = memoryview(b"".join((_without_codec(raw), unpacked)))
            batch = DefaultRecordBatch(raw)
    try:
        records = _parsed(raw, batch)
    except MemoryError:
        raise
    except Exception as error:  # a parser's own, of which the broker knows nothing
        raise Unusable("malformed", f"a record batch that cannot be read: {error!r:.200}") from error
    if not codec:
        _numbered(records, batch)
    held = sum(map(len, map(_HEADERS, records))) if any(map(_HEADERS, records)) else 0
    return records, weight + HEADER_BYTES * held


def _parsed(raw: memoryview, batch: Any) -> list[Any]:
    try:
        return list(batch)
    except UnicodeDecodeError:
        return list(_Spelled(raw))


def _without_codec(raw: memoryview) -> bytes:
    head = bytearray(raw[:HEAD])
    head[CODEC] &= ~7
    return bytes(head)


class _Spelled(_DefaultRecordBatchPy):  # type: ignore[misc]
    """aiokafka's parser in Python: slow, and nothing is hidden in it."""

    def __iter__(self) -> Any:
        super().__iter__()
        self._buffer = _Bytes(self._buffer)  # type: ignore[has-type]
        return self


class _Bytes(bytearray):
    """Whose slices say what they can in UTF-8, and spell the rest."""

    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        return _Bytes(found) if isinstance(where, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
