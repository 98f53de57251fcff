"""What stands in the corpus: JSON in which an object with a `$` word says how a long or odd value is made."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from fastavro import schemaless_writer

from schemas.codec.catalog import SINGLE_OBJECT, StoredEvent, catalog
from schemas.envelope import Kind

CORPUS = Path(__file__).parents[1] / "corpus"
VALID: Mapping[str, Mapping[str, Any]] = json.loads((CORPUS / "valid.json").read_text())
"""For each event type, fields that are right; a line of the corpus says what is wrong instead."""


class Line(NamedTuple):
    group: str
    name: str
    says: Mapping[str, Any]


def lines(group: str) -> list[Line]:
    given = (CORPUS / f"{group}.jsonl").read_text().splitlines()
    return [Line(group, says.pop("name"), says) for says in map(json.loads, given)]


def groups() -> list[str]:
    return sorted(path.stem for path in CORPUS.glob("*.jsonl"))


def made(value: Any, world: Mapping[str, str]) -> Any:
    """`world` is what `$from` may name: addresses and companies of this run."""
    if isinstance(value, list):
        return [made(each, world) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (word := next(iter(value))).startswith("$"):
        return MAKERS[word](value[word], world)
    return {name: made(each, world) for name, each in value.items()}


def _times(given: Any, world: Mapping[str, str]) -> Any:
    """[text, n]: n times."""
    return made(given[0], world) * given[1]


def _many(given: Any, world: Mapping[str, str]) -> list[Any]:
    """[item, n]: a list of n."""
    return [made(given[0], world) for _ in range(given[1])]


def _join(given: Any, world: Mapping[str, str]) -> Any:
    """Texts or bytes, one after another."""
    parts = [made(each, world) for each in given]
    if any(isinstance(part, bytes) for part in parts):
        return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return "".join(parts)


def _avro(given: Any, world: Mapping[str, str]) -> bytes:
    """[type, changed fields]"""
    encoded = avro_of(event(given[0], given[1], world))
    assert encoded is not None, given
    return encoded


def _cut(given: Any, world: Mapping[str, str]) -> bytes:
    """[bytes, n]: the last n are missing."""
    return bytes(made(given[0], world)[: -given[1]])


MAKERS: Mapping[str, Callable[[Any, Mapping[str, str]], Any]] = {
    "$times": _times,
    "$many": _many,
    "$join": _join,
    "$avro": _avro,
    "$cut": _cut,
    "$number": lambda given, _: float(given),
    "$hex": lambda given, _: bytes.fromhex(given),
    "$from": lambda given, world: world[given],
    "$fresh": lambda given, _: f"{given}{uuid4().hex}",
    "$json": lambda given, world: json.dumps(made(given, world)),
    "$start": lambda given, _: SINGLE_OBJECT + _entry(given).fingerprint,
}


def event(type_: str, changed: Mapping[str, Any], world: Mapping[str, str]) -> dict[str, Any]:
    """All of an event's fields, with what the line changes; null in `valid.json` stays null."""
    id_ = uuid4().hex
    envelope = {
        "id": id_,
        "type": type_,
        "company": world["mallory"],
        "time": 1_790_000_000_000_000,
        "correlation": id_,
    }
    return made({**envelope, **VALID[type_], **changed}, world)


def json_of(fields: Mapping[str, Any]) -> bytes:
    """As a careless or hostile client writes it: NaN, lone surrogates and all."""
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")


def avro_of(fields: Mapping[str, Any]) -> bytes | None:
    """Without a check but those of Avro's own types; None where they cannot say it."""
    entry, out = _entry(str(fields["type"]), fields.get("version")), io.BytesIO()
    out.write(SINGLE_OBJECT + entry.fingerprint)
    try:
        schemaless_writer(out, entry.schema, {"version": entry.kind.version, **fields})
    except Exception:
        return None
    return out.getvalue()


def _entry(type_: str, version: Any = None) -> StoredEvent:
    known = [kind for kind in catalog().by_kind if kind.type == type_]
    newest = max(known, key=lambda kind: kind.version)
    return catalog().by_kind.get(Kind(type_, version), catalog().by_kind[newest])
