"""A refused record on its way to the dead-letter topic, with all its bytes."""

from __future__ import annotations

import msgspec

from schemas.envelope import derived_id
from schemas.primitives import MAX_TIME, sane_company
from schemas.rejected import Header, RecordRejected
from streams.fold import Refused

NOBODY = "unknown"
"""The company of a record whose key names none."""


def dead_letter(refused: Refused) -> RecordRejected:
    """The same record always gives the same event, so that a repeat after a crash is known by its id."""
    record, (reason, detail, origin) = refused.record, msgspec.structs.astuple(refused.rejected)
    id_ = derived_id(origin, "rejected")
    return RecordRejected(
        id=id_,
        company=_company(record.key),
        time=min(max(0, record.timestamp) * 1000, MAX_TIME),
        correlation=id_,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(Header(key=key, value=value) for key, value in record.headers),
        reason=reason,
        detail=detail,
    )


def _company(key: bytes | None) -> str:
    name = (key or b"").split(b"/")[0].decode("utf-8", "replace")
    return name if sane_company(name) else NOBODY
