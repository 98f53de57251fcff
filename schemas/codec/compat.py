"""What a process checks before its first record: stored schemas are as they were, and what they wrote is readable."""

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

import msgspec
from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.codec.catalog import Recorded, StoredEvent, catalog, classes, history, kind_of
from schemas.codec.upcast import UPCASTERS
from schemas.envelope import Kind
from schemas.errors import Stop

REMEDY = "Put the old file back and add a next version beside it: docs/schemas.md."
JUDGED = "compatible.sha256"


def check_at_start() -> None:
    """Before a process's first record. Apache avro is asked only about schemas that it has not judged yet."""
    check_stored()
    if (files("schemas") / "avro" / JUDGED).read_text().strip() != judgement():
        check_compatible()


def judgement() -> str:
    """Names the stored schemas of which Apache avro said that each can read all that came before it."""
    shapes = sorted((name, recorded.shape) for name, recorded in history().items())
    return sha256(msgspec.json.encode(shapes)).hexdigest()


def check_stored() -> None:
    """No schema was edited, lost, or never recorded, and none lacks its upcaster."""
    for name, recorded in history().items():
        if name.rpartition(".v")[0] not in classes():
            raise Stop(f"{name} is on record, but no event class has that type: old records could not be read.")
        if shape(_stored(name)) != recorded.shape:
            raise Stop(f"schemas/avro/{name}.avsc was edited after it was recorded. {REMEDY}")
    for cls in classes().values():
        _check_versions(kind_of(cls))


def check_compatible() -> None:
    """By Apache avro's rules each version can be read by all that came after it."""
    for older, newer in _pairs(catalog().by_kind):
        if reasons := incompatibilities(newer.source, older.source):
            raise Stop(f"{newer.kind} cannot read what was written as {older.kind}: {'; '.join(reasons)}. {REMEDY}")


def incompatibilities(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    from avro.schema import make_avsc_object

    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(make_avsc_object(reader), make_avsc_object(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages)


def record_of(avsc: bytes) -> Recorded:
    """What history.json keeps of a schema."""
    canonical = to_parsing_canonical_form(parse_schema(msgspec.json.decode(avsc)))
    return Recorded(fingerprint(canonical, "CRC-64-AVRO"), shape(avsc))


def shape(avsc: bytes) -> str:
    """sha256 of all that decides how a record's bytes are laid out: not the docs, nor the kinds of words (ADR 11)."""
    return sha256(msgspec.json.encode(_laid_out(msgspec.json.decode(avsc)), order="sorted")).hexdigest()


def _laid_out(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _laid_out(value) for key, value in schema.items() if key not in ("doc", "word")}
    return [_laid_out(item) for item in schema] if isinstance(schema, list) else schema


def _stored(name: str) -> bytes:
    try:
        return (files("schemas") / "avro" / f"{name}.avsc").read_bytes()
    except FileNotFoundError as error:
        raise Stop(f"schemas/avro/{name}.avsc is on record, but gone. {REMEDY}") from error


def _check_versions(newest: Kind) -> None:
    for version in range(1, newest.version + 1):
        kind = Kind(newest.type, version)
        if kind not in catalog().by_kind:
            raise Stop(f"{kind} has a class, but is not on record. Run: python tests/upgrade/write.py")
        if version < newest.version and kind not in UPCASTERS:
            raise Stop(f"No upcaster lifts {kind} to version {version + 1}: add it to schemas/codec/upcast.py.")


def _pairs(entries: Mapping[Kind, StoredEvent]) -> list[tuple[StoredEvent, StoredEvent]]:
    """Every version of a type with every later one."""
    versions: dict[str, list[StoredEvent]] = defaultdict(list)
    for kind in sorted(entries):
        versions[kind.type].append(entries[kind])
    return [(older, newer) for all_ in versions.values() for n, newer in enumerate(all_) for older in all_[:n]]
