"""What was written to one changelog partition, and what a worker's copy of it must be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from pathlib import Path

import msgspec

from streams.log.port import Record
from streams.read_model.sink import RawRow
from streams.state.changelog import MARKERS, RESERVED, loss_of, marker_of
from streams.state.store import POSITION, RocksStore

Raw = dict[bytes, bytes]
_at = msgspec.json.Decoder(RawRow)


def folded_once(history: Iterable[Record]) -> None:
    """Each batch begins where the marker before it stands, also where a fold would not mind a second time."""
    markers: dict[str, int] = {}
    accepted: set[tuple[str, int, int]] = set()
    rows: list[tuple[bytes, tuple[str, int, int]]] = []
    for record in history:
        key, value = record.key or b"", record.value or b""
        marker = marker_of(key, value)
        if marker is not None:
            before = markers.get(marker.topic, 0)
            first = marker.topic not in markers and not rows
            assert marker.next > before or first or (marker.topic, before, marker.next) in accepted, (
                f"at {record.offset} the marker of {marker.topic} goes from {before} back to {marker}"
            )
            for row, (topic, _, offset) in rows:
                where = f"at {record.offset} {row!r} was folded from {topic}/{offset}, outside of {before} to {marker}"
                assert topic == marker.topic and before <= offset < marker.next, where
            markers[marker.topic] = marker.next
            rows.clear()
        elif (loss := loss_of(key, record.value)) is not None:
            accepted.add((loss.topic, loss.folded, loss.next))
        elif not key.startswith(RESERVED):
            rows.append((key, _at.decode(value).at))


def replayed(history: Iterable[Record], last: int | None = None) -> Raw:
    rows: Raw = {}
    for record in history:
        if last is not None and record.offset > last:
            break
        if record.value is None:
            rows.pop(record.key or b"", None)
        else:
            rows[record.key or b""] = record.value
    return rows


def clean(rows: Raw) -> Raw:
    return {key: value for key, value in rows.items() if not key.startswith(RESERVED)}


def local(path: Path) -> Raw | None:
    if not path.exists():
        return None
    store = RocksStore(path)
    rows = dict(store.scan())
    position = store.position()
    store.close()
    return None if position is None else {**rows, POSITION: position.to_bytes(8, "big")}


def prefix(history: list[Record], copy: Raw) -> bool:
    """Rows and markers are those at the copy's own position. Where the broker could not tell it, it lags by a batch."""
    position = int.from_bytes(copy[POSITION], "big")
    markers = [r.offset for r in history if r.offset > position and r.value and marker_of(r.key or b"", r.value)]
    there = _counted(copy)
    return any(there == _counted(replayed(history, last)) for last in (position, *markers[:2]))


def sparse(history: list[Record], gone: Container[int], copy: Raw) -> bool:
    """Filled from a cleaned log and broken off: of a row that was written again later, an older state, or none."""
    position, there = int.from_bytes(copy[POSITION], "big"), _counted(copy)
    last: dict[bytes, int] = {}
    values: dict[bytes, set[bytes | None]] = defaultdict(lambda: {None})
    for record in history:
        if record.offset <= position:
            last[record.key or b""] = record.offset
            values[record.key or b""].add(record.value)
    should = _counted(replayed(history, position))
    differ = [key for key in {**there, **should} if there.get(key) != should.get(key)]
    return all(last.get(key, -1) in gone and there.get(key) in values[key] for key in differ)


def apart(history: list[Record], gone: Container[int], copy: Raw) -> str:
    """Which of its keys are not as they were at its position, and where those were written."""
    position, there = int.from_bytes(copy[POSITION], "big"), _counted(copy)
    should = _counted(replayed(history, position))
    differ = [key for key in {**there, **should} if there.get(key) != should.get(key)]
    written = {
        key: [
            (record.offset, record.offset in gone, record.value == there.get(key))
            for record in history
            if (record.key or b"") == key
        ][-12:]
        for key in differ[:5]
    }
    return f"at {position} of {history[-1].offset}, {len(differ)} keys; (offset, gone, as in the copy): {written}"


def _counted(rows: Raw) -> Raw:
    return {key: value for key, value in rows.items() if key.startswith(MARKERS) or not key.startswith(RESERVED)}
