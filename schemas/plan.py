"""What stands in an event's Avro bytes, in their order. The readers in Python and in C are made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

from schemas.envelope import Kind
from schemas.writer import long

Schema = Mapping[str, Any]
Builders = Mapping[str, Callable[..., Any]]
Plan = tuple[Any, ...]
"""What stands at one place, with what belongs to it:

("text",) ("name",) ("company",) ("time",) ("long",) ("bytes",) ("double",) ("boolean",)
("kind", bytes, title): the event's type and version, which are its class's own, and no values
("optional", plan) ("array", plan)
("record", class or None for a dict, names, plans): a name for each plan that has a value
"""

PLAIN: Mapping[str, Plan] = {
    **{"string": ("text",), "long": ("long",), "bytes": ("bytes",)},
    **{"double": ("double",), "boolean": ("boolean",)},
}
ENVELOPE: Mapping[str, Plan] = {
    "id": ("name",),
    "type": (),
    "version": (),
    "company": ("company",),
    "time": ("time",),
    "causation": ("optional", ("text",)),
    "correlation": ("name",),
}


def plan_of(schema: Schema, kind: Kind, builders: Builders) -> Plan:
    """Of one event's schema. Builders go by record name; a record without one becomes a dict."""
    assert [field["name"] for field in schema["fields"][: len(ENVELOPE)]] == list(ENVELOPE)
    body = {**schema, "fields": schema["fields"][len(ENVELOPE) :]}
    _, make, names, plans = _record(body, {}, builders)
    title = kind.type.encode()
    head = long(len(title)) + title + long(kind.version)
    envelope = {**ENVELOPE, "type": ("kind", head, str(kind))}
    del envelope["version"]
    return "record", make, (*(name for name in envelope if name != "type"), *names), (*envelope.values(), *plans)


def _record(schema: Schema, seen: dict[str, Schema], builders: Builders) -> Plan:
    name = schema["name"].rpartition(".")[2]
    seen[name] = schema
    parts = {intern(field["name"]): _plan(field["type"], seen, builders) for field in schema["fields"]}
    return "record", builders.get(name), tuple(parts), tuple(parts.values())


def _plan(schema: Any, seen: dict[str, Schema], builders: Builders) -> Plan:
    if isinstance(schema, list):
        (inner,) = (branch for branch in schema if branch != "null")
        return "optional", _plan(inner, seen, builders)
    if isinstance(schema, str):
        return PLAIN.get(schema) or _record(seen[schema.rpartition(".")[2]], seen, builders)
    if schema["type"] == "array":
        return "array", _plan(schema["items"], seen, builders)
    return _record(schema, seen, builders) if schema["type"] == "record" else PLAIN[schema["type"]]
