"""What is on record of an application, in `recorded/` beside it: schemas of events, shapes of states, code of rules.

Records were written with it, so it never changes: what departs from it is refused, and says its next version.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from processors.dataset.taught import Rule
from projections.projection import Projection
from rillfold.app.errors import BadApp
from schemas.codec.catalog import Recorded, StoredEvent, kind_of
from schemas.codec.compat import incompatibilities, record_of, shape
from schemas.codec.derive import avro_of
from schemas.envelope import Event, Kind

REMEDY = "Put the old file back, and say the next version"


class OnRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`recorded/history.json`."""

    events: dict[str, Recorded] = {}
    """By `type.vN`."""
    states: dict[str, str] = {}
    """By `projection.vN`: the hash of its fields."""
    rules: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By `rule.vN`: the hash of its code. An older release reads a file without them."""


class Records:
    """The folder of one application."""

    def __init__(self, app: str, folder: Path) -> None:
        self.app, self.folder = app, folder

    def history(self) -> OnRecord:
        path = self.folder / "history.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=OnRecord)
        except FileNotFoundError:
            return OnRecord()
        except (msgspec.DecodeError, OSError) as error:
            raise BadApp(f"{path} of {self.app} cannot be read: {error}. Put it back as it was.") from error

    def stored(self, cls: type[Event], where: str) -> list[StoredEvent]:
        """Every version of an event, as it is on record: unedited, readable by each that came after it."""
        newest, history = kind_of(cls), self.history()
        if any(kind.type == newest.type and kind.version > newest.version for kind in map(_kind, history.events)):
            raise BadApp(f"{where}: {newest} is older than what is on record in {self.folder}. Say that version.")
        found = []
        for version in range(1, newest.version + 1):
            kind = Kind(newest.type, version)
            recorded = history.events.get(str(kind))
            if recorded is None:
                told = "`rillfold app record` writes its schema down"
                raise BadApp(f"{where}: {kind} is not on record in {self.folder}: {told}.")
            found.append(StoredEvent(kind, cls, recorded, self.folder))
            self._check_unedited(found[-1])
        self._check_class(found[-1], where)
        for n, newer in enumerate(found):
            _check_reads(newer.source, newer.kind, found[:n], where)
        return found

    def check_state(self, projection: Projection[Any], where: str) -> None:
        """What is not on record yet may be anything."""
        states, name = self.history().states, _name(projection)
        versions = [kind.version for kind in map(_kind, states) if kind.type == projection.name]
        if newer := [version for version in versions if version > projection.version]:
            told = f"version {max(newer)} is on record in {self.folder}. Say that, or the next"
            raise BadApp(f"{where}: projection {projection.name!r} says version {projection.version}: {told}.")
        if states.get(name) not in (None, state_of(projection)):
            told = f"rows of version {projection.version} were written. Say version={projection.version + 1}"
            raise BadApp(f"{where}: the state of {projection.name!r} has other fields than those with which {told}.")

    def check_rule(self, rule: Rule) -> None:
        recorded = (self.history().rules or {}).get(rule.name)
        if recorded is None:
            told = "`rillfold app record` writes down the hash of its code"
            raise BadApp(f"{rule.place}: rule {rule.name} is not on record in {self.folder}: {told}.")
        if recorded != rule.sha256:
            told = "adapters were trained by that. Put it back, or say the next version, which may stand beside it"
            raise BadApp(f"{rule.place}: rule {rule.name}, or what it names, is other code than on record: {told}.")

    def write(
        self, events: Iterator[type[Event]], projections: Iterator[Projection[Any]], rules: Collection[Rule]
    ) -> list[str]:
        """What is missing. Returns its names; what is there is not touched."""
        history = self.history()
        known, states = dict(history.events), dict(history.states)
        schemas = [cls for cls in events if str(kind_of(cls)) not in known]
        shapes = [each for each in projections if _name(each) not in states]
        codes = {each.name: each.sha256 for each in rules if each.name not in (history.rules or {})}
        if not schemas and not shapes and not codes:
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        for cls in schemas:
            known[str(kind_of(cls))] = record_of(self._written(cls, known))
        states |= {_name(each): state_of(each) for each in shapes}
        known_rules = {**(history.rules or {}), **codes} or msgspec.UNSET
        text = msgspec.json.encode(OnRecord(known, states, known_rules), order="sorted")
        (self.folder / "history.json").write_bytes(msgspec.json.format(text) + b"\n")
        return [*(f"{kind_of(cls)}.avsc" for cls in schemas), *map(_name, shapes), *codes]

    def _written(self, cls: type[Event], known: Mapping[str, Recorded]) -> bytes:
        """Its schema's file, as it lies there or is written now."""
        path = self.folder / f"{kind_of(cls)}.avsc"
        if not path.exists():
            schema = avro_of(cls, self.app)
            _check_reads(schema, kind_of(cls), self._older(cls, known), self.app)
            path.write_text(json.dumps(schema, indent=2) + "\n")
        return path.read_bytes()

    def _check_unedited(self, entry: StoredEvent) -> None:
        path = self.folder / f"{entry.kind}.avsc"
        try:
            found = shape(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise BadApp(f"{path} of {self.app} cannot be read: {error}. {REMEDY}.") from error
        if found != entry.recorded.shape:
            raise BadApp(f"{path} of {self.app} was edited after it was recorded. {REMEDY}.")

    def _check_class(self, newest: StoredEvent, where: str) -> None:
        said = json.dumps(avro_of(newest.cls, self.app)).encode()
        if shape(said) != newest.recorded.shape:
            told = f"say version={newest.kind.version + 1}, and how the old one is lifted: @app.upcast"
            raise BadApp(f"{where}: {newest.cls.__name__} has other fields than {newest.kind} on record: {told}.")

    def _older(self, cls: type[Event], known: Mapping[str, Recorded]) -> list[StoredEvent]:
        kinds = (Kind(kind_of(cls).type, version) for version in range(1, kind_of(cls).version))
        return [StoredEvent(kind, cls, known[str(kind)], self.folder) for kind in kinds if str(kind) in known]


def _check_reads(schema: Mapping[str, Any], kind: Kind, older: Sequence[StoredEvent], where: str) -> None:
    """By Apache avro's rules a version can read what every version before it wrote."""
    for each in older:
        if reasons := incompatibilities(schema, each.source):
            told = f"what was written as {each.kind}: {'; '.join(reasons)}. Give a new field a default, or widen a type"
            raise BadApp(f"{where}: {kind} cannot read {told}.")


def state_of(projection: Projection[Any]) -> str:
    """sha256 of a state's fields, their types and defaults, and of those that they are made of."""
    return sha256(msgspec.json.encode(_laid_out(projection.state, ()))).hexdigest()


def _laid_out(hint: Any, inside: tuple[Any, ...]) -> Any:
    """The same for the same rows, whatever classes are called and whichever release of Python looks at them."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _laid_out(parts[0], inside)
    if origin is Literal:
        return ["literal", *map(str, parts)]
    if parts:
        kind = "or" if origin in (Union, UnionType) else origin.__name__
        return [kind, *(_laid_out(part, inside) for part in parts)]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return inside.index(hint) if hint in inside else _fields(hint, (*inside, hint))
    return getattr(hint, "__name__", str(hint))


def _fields(struct: type[msgspec.Struct], inside: tuple[Any, ...]) -> list[Any]:
    hints = get_type_hints(struct, include_extras=True)
    return [
        [field.name, _laid_out(hints[field.name], inside), None if field.required else repr(field.default)]
        for field in msgspec.structs.fields(struct)
    ]


def _name(projection: Projection[Any]) -> str:
    return f"{projection.name}.v{projection.version}"


def _kind(name: str) -> Kind:
    type_, _, version = name.rpartition(".v")
    return Kind(type_, int(version) if version.isdigit() else 0)
