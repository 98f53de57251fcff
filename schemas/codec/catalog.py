"""Every stored schema by (type, version) and by fingerprint. A schema is read and compiled when it is first used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast, get_args, get_type_hints

import msgspec
from fastavro import parse_schema

from schemas.codec.plan import Plan, plan_of
from schemas.codec.reader import Reader, reader
from schemas.codec.upcast import lift
from schemas.codec.writer import Writer, compiled_writer
from schemas.envelope import Event, Kind
from schemas.topics import TOPIC_OF

Schema = dict[str, Any]
SINGLE_OBJECT = b"\xc3\x01"
"""What a fingerprint follows, by Avro's specification."""


class Recorded(msgspec.Struct, frozen=True):
    """What was written down of a schema when it was added."""

    fingerprint: str
    """CRC-64-AVRO of its canonical form, little endian, in hex: the eight bytes after C3 01."""
    shape: str
    """sha256 of all of it but docs and kinds of words: defaults do not show in a canonical form."""


@dataclass(frozen=True)
class StoredEvent:
    """One version of one event. The class is always the newest version's."""

    kind: Kind
    cls: type[Event]
    recorded: Recorded
    folder: Traversable
    """Where its schema lies."""

    @cached_property
    def fingerprint(self) -> bytes:
        return bytes.fromhex(self.recorded.fingerprint)

    @cached_property
    def source(self) -> Schema:
        return cast(Schema, msgspec.json.decode((self.folder / f"{self.kind}.avsc").read_bytes()))

    @cached_property
    def schema(self) -> Schema:
        """As fastavro keeps it."""
        return cast(Schema, parse_schema(self.source))

    @cached_property
    def plan(self) -> Plan:
        """What its bytes are: of the newest version an event, of an older one a dict."""
        newest = self.kind == kind_of(self.cls)
        return plan_of(self.source, self.kind, {c.__name__: c for c in structs_in(self.cls)} if newest else {})

    @cached_property
    def read(self) -> Reader:
        """(bytes, start of the body) to the event, lifted to the newest version."""
        read, newest = reader(self.plan), kind_of(self.cls).version
        if self.kind.version == newest:
            return read
        return lambda b, p: msgspec.convert(lift(self.kind, read(b, p), newest), self.cls)

    @cached_property
    def write(self) -> Writer:
        """An event of the newest version to its bytes in single-object encoding."""
        return compiled_writer(self.source, self.kind, SINGLE_OBJECT + self.fingerprint)


@dataclass(frozen=True)
class Catalog:
    by_kind: Mapping[Kind, StoredEvent]
    by_fingerprint: Mapping[bytes, StoredEvent]
    by_class: Mapping[type[Event], StoredEvent]
    """The newest version of each."""
    by_id: dict[int, StoredEvent] = field(default_factory=dict)
    """What a schema registry has told this process so far. An id never changes its meaning."""


ADDED: dict[Kind, StoredEvent] = {}
"""Of applications, every version: `schemas.codec.additions`."""


@cache
def kind_of(cls: type[Event]) -> Kind:
    fields = {field.name: field.default for field in msgspec.structs.fields(cls)}
    return Kind(fields["type"], fields["version"])


def structs_in(cls: Any) -> Iterator[type[msgspec.Struct]]:
    """The class itself and every one that its fields are made of."""
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct):
        yield cls
        parts = tuple(get_type_hints(cls).values())
    else:
        parts = get_args(cls)
    for part in parts:
        yield from structs_in(part)


@cache
def classes() -> Mapping[str, type[Event]]:
    """Wire type to class, for every event that lives on a topic."""
    return {kind_of(cls).type: cls for cls in TOPIC_OF}


def ours() -> Traversable:
    """The folder of our schemas."""
    return files("schemas") / "avro"


@cache
def history() -> Mapping[str, Recorded]:
    """`type.vN` to what was recorded of it."""
    return msgspec.json.decode((ours() / "history.json").read_bytes(), type=dict[str, Recorded])


@cache
def catalog() -> Catalog:
    entries = [_entry(name, recorded) for name, recorded in history().items() if name.rpartition(".v")[0] in classes()]
    entries += ADDED.values()
    by_kind = {entry.kind: entry for entry in entries}
    newest = {cls: by_kind[kind_of(cls)] for cls in classes().values() if kind_of(cls) in by_kind}
    return Catalog(by_kind, {entry.fingerprint: entry for entry in entries}, newest)


def _entry(name: str, recorded: Recorded) -> StoredEvent:
    kind, _, version = name.rpartition(".v")
    return StoredEvent(Kind(kind, int(version)), classes()[kind], recorded, ours())
