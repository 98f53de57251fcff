"""Records that could not be understood, kept byte for byte."""

from __future__ import annotations

import msgspec

from schemas.envelope import Event


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A Kafka header."""

    key: str
    value: bytes | None = None


class RecordRejected(Event, frozen=True, kw_only=True):
    """A record went to the dead-letter topic."""

    type: str = "record.rejected"
    version: int = 1
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
    reason: str
    """Machine readable: one of schemas.codec.REASONS."""
    detail: str = ""
