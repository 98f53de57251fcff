"""What stands in an event's Avro bytes, in their order. The readers in Python and in C are made from it."""

from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

from schemas.codec.writer import long
from schemas.envelope import Kind
from schemas.words import COMPANY, ID, WORDS, Word

Schema = Mapping[str, Any]
Builders = Mapping[str, Callable[..., Any]]
Plan = tuple[Any, ...]
"""What stands at one place, with what belongs to it:

("document",) ("company",) ("time",) ("long",) ("bytes",) ("double",) ("boolean",)
("printable", least, most, word, field), and so with "plain", "text" and "json": of what a word of that kind is made
("kind", bytes, title): the event's type and version, which are its class's own, and no values
("optional", plan) ("array", plan)
("record", class or None for a dict, names, plans): a name for each plan that has a value
"""

PLAIN: Mapping[str, Plan] = {single: (single,) for single in ("long", "bytes", "double", "boolean")}


def word_plan(word: Word, field: str) -> Plan:
    bare = word.made_of in ("document", "company")
    return (word.made_of,) if bare else (word.made_of, word.least, word.most, word, field)


ENVELOPE: Mapping[str, Plan] = {
    "id": word_plan(ID, "id"),
    "type": (),
    "version": (),
    "company": word_plan(COMPANY, "company"),
    "time": ("time",),
    "causation": ("optional", word_plan(ID, "causation")),
    "correlation": word_plan(ID, "correlation"),
}


def plan_of(schema: Schema, kind: Kind, builders: Builders) -> Plan:
    """Of one event's schema. Builders go by record name; a record without one becomes a dict."""
    assert [field["name"] for field in schema["fields"][: len(ENVELOPE)]] == list(ENVELOPE)
    body = {**schema, "fields": schema["fields"][len(ENVELOPE) :]}
    _, make, names, plans = _record(body, "", {}, builders)
    title = kind.type.encode()
    head = long(len(title)) + title + long(kind.version)
    envelope = {**ENVELOPE, "type": ("kind", head, str(kind))}
    del envelope["version"]
    return "record", make, (*(name for name in envelope if name != "type"), *names), (*envelope.values(), *plans)


def _record(schema: Schema, inside: str, seen: dict[str, Schema], builders: Builders) -> Plan:
    name = schema["name"].rpartition(".")[2]
    seen[name] = schema
    parts = {intern(field["name"]): _field(field, inside, seen, builders) for field in schema["fields"]}
    return "record", builders.get(name), tuple(parts), tuple(parts.values())


def _field(field: Schema, inside: str, seen: dict[str, Schema], builders: Builders) -> Plan:
    """`inside` names the fields that lead there, each with a dot."""

    def plan(schema: Any) -> Plan:
        if isinstance(schema, list):
            (inner,) = (branch for branch in schema if branch != "null")
            return "optional", plan(inner)
        if schema == "string":
            return word_plan(WORDS[field["word"]], inside + field["name"])
        if isinstance(schema, str) and schema in PLAIN:
            return PLAIN[schema]
        if isinstance(schema, dict) and schema["type"] == "array":
            return "array", plan(schema["items"])
        record = schema if isinstance(schema, dict) else seen[schema.rpartition(".")[2]]
        return _record(record, f"{inside}{field['name']}.", seen, builders)

    return plan(field["type"])
