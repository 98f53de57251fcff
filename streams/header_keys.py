"""Header keys that are no UTF-8. aiokafka raises for a whole record batch with one, and would do so for ever.

Any client of the topic can write such a key, and the broker takes it. Here its bytes are spelled (`\\xff`), and the
record goes on to whoever judges it.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

LENGTH = 12
"""Bytes of a record batch before those that its length counts."""


def keep_bytes() -> None:
    """From now on what is fetched keeps its bytes beside the parser, which hides them."""
    fetcher.MemoryRecords = Kept


class Kept(MemoryRecords):  # type: ignore[misc]  # final in its stub, not in truth
    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)
        self._fetched = fetched

    def batch(self, base_offset: int) -> bytes:
        """The bytes of the record batch that begins there."""
        at = 0
        while int.from_bytes(self._fetched[at : at + 8], "big", signed=True) != base_offset:
            at += LENGTH + int.from_bytes(self._fetched[at + 8 : at + LENGTH], "big")
        return self._fetched[at : at + LENGTH + int.from_bytes(self._fetched[at + 8 : at + LENGTH], "big")]


def records_of(fetched: Any, batch: Any) -> list[Any]:
    """The records of a batch that was parsed from `fetched`."""
    try:
        return list(batch)
    except UnicodeDecodeError:
        if not isinstance(fetched, Kept):
            raise
        return list(_Spelled(fetched.batch(batch.base_offset)))


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
