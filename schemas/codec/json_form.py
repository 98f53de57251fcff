"""Events as any JSON client writes them: strict about content, lenient about what the log already knows."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from schemas.codec.catalog import catalog, classes, kind_of
from schemas.codec.upcast import lift
from schemas.envelope import Event, Kind, Origin, derived_id
from schemas.rejected import Unusable


def event_of_json(value: bytes, origin: Origin, timestamp_ms: int) -> Event:
    """Where absent: `id` by the origin, `time` by the record."""
    return event_of_fields(json_fields(value), lambda: derived_id(origin), timestamp_ms * 1000)


def event_of_fields(given: Mapping[str, Any], id_: Callable[[], str], time: int) -> Event:
    """Where absent: `id` and `time` as told, `version` the newest, `correlation` the id."""
    event = shaped(given, id_, time)
    catalog().by_class[type(event)].write(event)  # refuses what types cannot say: kinds of words, limits, 64 bits
    return event


def shaped(given: Mapping[str, Any], id_: Callable[[], str], time: int) -> Event:
    """As far as types can say it is an event. For callers that write it at once, which refuses the rest."""
    cls = _class(given)
    kind = Kind(given["type"], _version(given, cls))
    fields = {"time": time, **given}
    if "id" not in fields:
        fields["id"] = id_()
    fields.setdefault("correlation", fields["id"])
    if not fields.get("company"):
        raise Unusable("missing_company", f"{kind} names no company")
    newest = kind_of(cls).version
    try:
        return msgspec.convert(fields if kind.version == newest else _lifted(kind, fields, newest), cls)
    except msgspec.ValidationError as error:
        raise Unusable("wrong_type", f"{kind}: {error}") from error


def _lifted(kind: Kind, given: dict[str, Any], newest: int) -> dict[str, Any]:
    """An old version has only its schema to say what belongs to it; the types are checked after the lift."""
    fields = {field["name"]: field for field in catalog().by_kind[kind].source["fields"]}
    if unknown := given.keys() - fields.keys():
        raise Unusable("wrong_type", f"{kind}: Object contains unknown field `{min(unknown)}`")
    absent = fields.keys() - given.keys()
    if required := [name for name in absent if "default" not in fields[name]]:
        raise Unusable("wrong_type", f"{kind}: Object missing required field `{min(required)}`")
    try:
        return lift(kind, {**{name: fields[name]["default"] for name in absent}, **given}, newest)
    except Exception as error:
        raise Unusable("wrong_type", f"{kind} cannot be lifted: {error!r}") from error


def json_fields(text: bytes) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        raise Unusable("bad_utf8", str(error)) from error
    except RecursionError as error:
        raise Unusable("too_deep", "the JSON is nested too deeply") from error
    except ValueError as error:
        raise Unusable("invalid_json", str(error)) from error
    if not isinstance(given, dict):
        raise Unusable("invalid_json", "not a JSON object")
    return given


def _class(given: Mapping[str, Any]) -> type[Event]:
    name = given.get("type")
    if not isinstance(name, str) or name not in classes():
        known = ", ".join(sorted(classes()))
        raise Unusable("unknown_event", f"type {name!r:.80} is none of {known}")
    return classes()[name]


def _version(given: Mapping[str, Any], cls: type[Event]) -> int:
    newest = kind_of(cls)
    version = given.get("version", newest.version)
    if type(version) is not int or version < 1:
        raise Unusable("wrong_type", f"version {version!r:.80} of {newest.type} is not a whole number from 1")
    if version > newest.version:
        raise Unusable("newer_version", f"{newest.type} version {version}: the newest known here is {newest.version}")
    if Kind(newest.type, version) not in catalog().by_kind:
        raise Unusable("unknown_event", f"{newest.type} never had a version {version}")
    return version
