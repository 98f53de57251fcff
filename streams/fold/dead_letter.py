"""A refused record on its way to the dead-letter topic, with all its bytes, or as many as the topic holds."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

import msgspec

from schemas.codec.codec import MAX_BYTES
from schemas.codec.primitives import MAX_TIME, sane_company
from schemas.envelope import Event, derived_id
from schemas.errors import Poison
from schemas.rejected import Header, RecordRejected
from schemas.topics import TopicNames
from streams.fold.batch import NoEvent, SourceRecord
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog
from streams.state.refusal import bounded

log = logging.getLogger(__name__)
NOBODY = "unknown"
"""The company of a record whose key names none."""
LIMITS = (MAX_BYTES + (256 << 10), 256 << 10, 0)
"""Bytes of a record that its letter holds: what could be an event, with its key and headers. A larger one can only have
come compressed, and is never sent again. Where somebody has made the dead-letter topic smaller than ours, fewer fit."""
REDRIVEN = "rillfold-redriven"
"""A header that names the letter of a record that was sent again. Refused once more it is the same letter."""
CUT = "rillfold-cut"
"""A header of a letter that does not hold all of its record, with how many bytes it had. The record itself stands where
it was refused."""
LETTER_DETAIL_CHARS = 2_000


async def publish_letters(
    refused: Sequence[NoEvent],
    publish: Callable[[Sequence[Event]], Awaitable[None]],
    unheld: Callable[[NoEvent, Poison], None] | None = None,
) -> None:
    """All at once; where one does not fit, it alone goes with as much of its record as is taken: what holds it is cut
    in half again and again. `unheld` hears of one that no letter can hold; without, that is raised."""
    try:
        await publish([dead_letter(each) for each in refused])
        return
    except Poison:
        if (half := len(refused) // 2) > 0:
            await publish_letters(refused[:half], publish, unheld)
            await publish_letters(refused[half:], publish, unheld)
            return
    for limit in LIMITS[1:]:
        try:
            await publish([dead_letter(refused[0], limit)])
            return
        except Poison as error:
            if limit:
                continue
            if unheld is None:
                raise
            unheld(refused[0], error)


async def bury(event_log: EventLog, names: TopicNames, refused: Sequence[NoEvent]) -> None:
    """For who takes records without folding them: what no letter can hold is in the worker's own log alone."""

    async def publish(events: Sequence[Event]) -> None:
        await event_log.append([to_outgoing(event, names) for event in events])

    def unheld(one: NoEvent, why: Poison) -> None:
        log.error("%s: no dead letter can hold this record: %.500s", one.rejected.origin, why)

    await publish_letters(refused, publish, unheld)


def dead_letter(refused: NoEvent, limit: int = LIMITS[0]) -> RecordRejected:
    """The same record always gives the same event, so that a repeat after a crash is known by its id."""
    record, (reason, detail, origin) = refused.record, msgspec.structs.astuple(refused.rejected)
    id_ = _redriven(record.headers) or derived_id(origin, "rejected")
    key, value, headers = record.key, record.value, tuple(record.headers)
    if (size := size_with_headers(record)) > limit:
        key, value, headers = _start(key, limit // 4), _start(value, limit // 2), ((CUT, b"%d" % size),)
    return RecordRejected(
        id=id_,
        company=_company(record.key),
        time=min(max(0, record.timestamp) * 1000, MAX_TIME),
        correlation=id_,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        timestamp=record.timestamp,
        key=key,
        value=value,
        headers=tuple(Header(key=name, value=text) for name, text in headers),
        reason=reason,
        detail=bounded(detail, LETTER_DETAIL_CHARS),
    )


def size_with_headers(record: SourceRecord) -> int:
    headers = sum(len(name.encode()) + len(text or b"") for name, text in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def _redriven(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """Whoever sent the record may have written anything here: where it is no id, it names no letter."""
    for name, value in headers:
        if name == REDRIVEN:
            with suppress(ValueError):
                return str(UUID((value or b"").decode("ascii", "replace")))
    return None


def _start(whole: bytes | None, limit: int) -> bytes | None:
    return None if whole is None else whole[:limit]


def _company(key: bytes | None) -> str:
    name = (key or b"")[:1_000].split(b"/")[0].decode("utf-8", "replace")
    return name if sane_company(name) else NOBODY
