"""Every stored schema by (type, version) and by fingerprint. A schema is parsed when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple, cast

from fastavro import parse_schema

from schemas.envelope import Event
from schemas.topics import TOPIC_OF

Schema = dict[str, Any]


class Kind(NamedTuple):
    """A wire name: what an event says it is."""

    type: str
    version: int

    def __str__(self) -> str:
        return f"{self.type}.v{self.version}"


@dataclass(frozen=True)
class Entry:
    """One version of one event: its class is the newest version's, its schema is its own."""

    kind: Kind
    cls: type[Event]
    newest: int
    fingerprint: bytes
    """CRC-64-AVRO of the canonical form, little endian: the eight bytes after C3 01."""

    @cached_property
    def source(self) -> Schema:
        return cast(Schema, json.loads((files("schemas") / "avro" / f"{self.kind}.avsc").read_bytes()))

    @cached_property
    def schema(self) -> Schema:
        return cast(Schema, parse_schema(self.source))


@dataclass(frozen=True)
class Catalog:
    by_kind: Mapping[Kind, Entry]
    by_fingerprint: Mapping[bytes, Entry]

    def newest(self, cls: type[Event]) -> Entry:
        return self.by_kind[kind_of(cls)]


def kind_of(cls: type[Event]) -> Kind:
    defaults = dict(zip(cls.__struct_fields__[-len(cls.__struct_defaults__) :], cls.__struct_defaults__, strict=True))
    return Kind(defaults["type"], defaults["version"])


@cache
def classes() -> Mapping[str, type[Event]]:
    """Wire type to class, for every event that lives on a topic."""
    return {kind_of(cls).type: cls for cls in TOPIC_OF}


@cache
def history() -> Mapping[str, Mapping[str, str]]:
    """What was recorded of every schema when it was released: `type.vN` to fingerprint and shape."""
    return cast(Mapping[str, Mapping[str, str]], json.loads((files("schemas") / "avro" / "history.json").read_bytes()))


@cache
def catalog() -> Catalog:
    entries = [_entry(name, record["fingerprint"]) for name, record in history().items()]
    return Catalog({entry.kind: entry for entry in entries}, {entry.fingerprint: entry for entry in entries})


def _entry(name: str, fingerprint: str) -> Entry:
    type_, _, version = name.rpartition(".v")
    cls = classes()[type_]
    return Entry(Kind(type_, int(version)), cls, kind_of(cls).version, bytes.fromhex(fingerprint))
