"""A JSON schema as the grammar takes it: bounded, its references written out, and nothing in it that could not be kept.

What is settled is never wider than what was given: whatever fits it fits the given schema too.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from gpu_workers.refused import BadQuestion
from schemas.words import DEEPEST, depth, size

Schema = dict[str, Any]

SCHEMA_BYTES = 64_000
DEPTH = 32
NODES = 5_000
"""Of one schema with its references written out."""
PATTERN_LETTERS = 1_000
PROPERTIES = 400
"""Of one object: each that may be left out makes every step wider."""
LARGEST_STEP, FINEST_STEP = 1_000, 10
"""Of multipleOf: its digits without a point, and how many of them may stand after it."""
ANY_LEVELS = 8
"""So deep is a value that the schema says nothing about."""
LARGEST_INTEGER = 10**18 - 1
LARGEST_NUMBER = 10**15
"""Beyond them JSON readers disagree; an exponent, which could make an infinity, is never written."""

_OBJECT = ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties")
_ARRAY = ("items", "prefixItems", "minItems", "maxItems")
_STRING = ("pattern", "minLength", "maxLength", "format")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_PARTS = ("allOf", "anyOf", "oneOf")
_KEPT = {"type", "const", "enum", *_OBJECT, *_ARRAY, *_STRING, *_NUMBER, *_PARTS}
# They narrow what fits, and the grammar cannot keep them: to leave one out would be a promise broken in silence.
_NOT_HELD = {
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames",
    "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
    "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}


def read(text: str, what: str) -> Any:
    """JSON in bounded work."""
    try:
        if depth(text) > DEEPEST:
            raise BadQuestion(f"{what} is deeper than {DEEPEST} brackets.")
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadQuestion(f"{what} is no JSON: {error}") from error


def settled(schema: object, what: str, *, in_order: bool = False) -> Schema:
    """`in_order`: an object's keys stand sorted, as in the calls that a model learns from; else as the schema has them.

    An object takes only what its schema describes, unless that says otherwise, as where a tool is called.
    """
    return _Settling(schema, what, in_order).whole()


class _Settling:
    def __init__(self, root: object, what: str, in_order: bool) -> None:
        self._root, self._what, self._in_order = root, what, in_order
        self._left = NODES
        self._following: list[str] = []
        self._any = False

    def whole(self) -> Schema:
        _bounded(self._root, self._what)
        schema: Schema = self._settle(self._root, 0, True)
        return schema | {"$defs": _anything()} if self._any else schema

    def _refuse(self, why: str) -> BadQuestion:
        return BadQuestion(f"{self._what}: {why}.")

    def _settle(self, node: object, level: int, closed: bool) -> Any:
        self._left -= 1
        if level > DEPTH or self._left < 0:
            raise self._refuse(f"it is deeper than {DEPTH} or larger than {NODES} nodes, its references written out")
        if node is False:
            return {"enum": []} if level == 0 else False
        if node is True:
            return self._anything()
        if not isinstance(node, dict):
            raise self._refuse(f"{node!r:.100} is no schema")
        self._can_be_held(node, level)
        if "$ref" in node:
            return self._referred(node, level, closed)
        known = {name: value for name, value in node.items() if name in _KEPT}
        return self._described(known, level, closed) if known else self._anything()

    def _can_be_held(self, node: Schema, level: int) -> None:
        if unheld := sorted(name for name in _NOT_HELD & node.keys() if node[name] is not False):
            raise self._refuse(f"{unheld[0]!r} cannot be held to while an answer is made; leave it out")
        if level and "$id" in node:
            raise self._refuse("only the whole of it may have an '$id'")

    def _referred(self, node: Schema, level: int, closed: bool) -> Any:
        beside = {name: value for name, value in node.items() if name in _KEPT}
        reference = node["$ref"]
        target = self._target(reference)
        self._following.append(reference)
        try:
            found = self._settle(target, level + 1, closed and not beside)
        finally:
            self._following.pop()
        return {"allOf": [found, self._settle(beside, level + 1, False)]} if beside else found

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise self._refuse(f"$ref {reference!r:.100} is not followed; only one that starts with '#/' is")
        if reference in self._following or reference == "#":
            raise self._refuse(f"$ref {reference!r:.100} leads back to itself, and an answer has an end")
        found = self._root
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise self._refuse(f"$ref {reference!r:.100} points nowhere within it")
            found = found[name]
        return found

    def _described(self, node: Schema, level: int, closed: bool) -> Schema:
        if "const" in node or "enum" in node:
            return {name: self._value(node[name]) for name in ("const", "enum", "type") if name in node} | (
                self._parts(node, level, False)
            )
        kinds = _kinds(node)
        plain = {name: value for name, value in node.items() if name not in (*_OBJECT, *_ARRAY, *_PARTS)}
        done = plain | ({"type": node.get("type", kinds[0])} if kinds else {})
        if "number" in kinds or "integer" in kinds:
            done |= _between(node, LARGEST_NUMBER if "number" in kinds else LARGEST_INTEGER)
            done = {name: value for name, value in done.items() if value is not None}
            self._step(node.get("multipleOf", 1))
        if "format" in done and done["format"] not in _FORMATS:
            del done["format"]
        self._pattern(node.get("pattern"))
        if "object" in kinds:
            done |= self._object(node, level, closed)
        if "array" in kinds:
            done |= self._array(node, level)
        return done | self._parts(node, level, closed and not any(name in node for name in _OBJECT))

    def _object(self, node: Schema, level: int, closed: bool) -> Schema:
        done: Schema = {name: node[name] for name in ("required", "minProperties", "maxProperties") if name in node}
        for group in ("properties", "patternProperties"):
            if group in node:
                done[group] = dict(self._members(node[group], level, group == "patternProperties"))
        composed = any(name in node for name in (*_PARTS, "patternProperties"))
        shut = closed and not composed and "properties" in node
        return done | {
            "additionalProperties": self._settle(node.get("additionalProperties", not shut), level + 1, True)
        }

    def _members(self, members: object, level: int, patterns: bool) -> Iterator[tuple[str, Any]]:
        if not isinstance(members, dict):
            raise self._refuse(f"{members!r:.100} are no properties")
        if len(members) > PROPERTIES:
            raise self._refuse(f"an object has {len(members)} properties, and at most {PROPERTIES} are read")
        for name, schema in sorted(members.items()) if self._in_order else members.items():
            if patterns:
                self._pattern(name)
            yield name, self._settle(schema, level + 1, True)

    def _array(self, node: Schema, level: int) -> Schema:
        done: Schema = {name: node[name] for name in ("minItems", "maxItems") if name in node}
        if "prefixItems" in node:
            done["prefixItems"] = self._each(node["prefixItems"], level, True)
        return done | {"items": self._settle(node.get("items", True), level + 1, True)}

    def _parts(self, node: Schema, level: int, closed: bool) -> Schema:
        return {name: self._each(node[name], level, closed and name != "allOf") for name in _PARTS if name in node}

    def _each(self, parts: object, level: int, closed: bool) -> list[Any]:
        if not isinstance(parts, list):
            raise self._refuse(f"{parts!r:.100} is no list of schemas")
        return [self._settle(part, level + 1, closed) for part in parts]

    def _step(self, step: object) -> None:
        if not _is_number(step):
            raise self._refuse(f"multipleOf is {step!r:.100}, and no number")
        _, digits, exponent = Decimal(str(step)).normalize().as_tuple()
        if not isinstance(exponent, int) or not -FINEST_STEP <= exponent <= FINEST_STEP:
            raise self._refuse(f"multipleOf is {step!r:.100}, which is too large or too fine")
        if int("".join(map(str, digits))) * 10 ** max(0, exponent) > LARGEST_STEP:
            raise self._refuse(f"multipleOf is {step!r:.100}, and its digits are at most {LARGEST_STEP}")

    def _pattern(self, pattern: object) -> None:
        if isinstance(pattern, str) and len(pattern) > PATTERN_LETTERS:
            raise self._refuse(f"a pattern of {len(pattern)} letters, and at most {PATTERN_LETTERS} are read")

    def _value(self, value: Any) -> Any:
        """A constant, its keys in the order that they are written in."""
        if isinstance(value, dict):
            members = sorted(value.items()) if self._in_order else value.items()
            return {name: self._value(inner) for name, inner in members}
        return [self._value(inner) for inner in value] if isinstance(value, list) else value

    def _anything(self) -> Schema:
        self._any = True
        return {"$ref": f"#/$defs/any{ANY_LEVELS}"}


def _bounded(schema: object, what: str) -> None:
    """It came as text of bounded depth."""
    if (bytes_ := size(msgspec.json.encode(schema).decode())) > SCHEMA_BYTES:
        raise BadQuestion(f"{what}: it takes {bytes_} bytes, and at most {SCHEMA_BYTES} are read.")


def _kinds(node: Schema) -> list[str]:
    """The types that it may have. Where it names none, those that its other words are about."""
    if "type" in node:
        given = node["type"]
        return [kind for kind in given if isinstance(kind, str)] if isinstance(given, list) else [given]
    for kind, words in (("object", _OBJECT), ("array", _ARRAY), ("string", _STRING), ("number", _NUMBER)):
        if any(name in node for name in words):
            return [kind]
    return []


def _between(node: Schema, largest: int) -> Schema:
    """Bounds on both sides, of what is given and what is written at most. None: leave it out."""
    bounds: Schema = {}
    for name, exclusive, sign in (("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)):
        for each in (name, exclusive):
            if _is_number(node.get(each)) and sign * node[each] > largest:
                bounds[each] = None
        if all(bounds.get(each, node.get(each)) is None for each in (name, exclusive)):
            bounds[name] = sign * largest
    return bounds


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _anything() -> Schema:
    """Any JSON, in bounded depth."""
    plain: list[Schema] = [
        {"type": "string"},
        {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER},
        {"type": ["boolean", "null"]},
    ]
    levels: Schema = {"any0": {"anyOf": plain}}
    for level in range(1, ANY_LEVELS + 1):
        inner = {"$ref": f"#/$defs/any{level - 1}"}
        held: list[Schema] = [{"type": "array", "items": inner}, {"type": "object", "additionalProperties": inner}]
        levels[f"any{level}"] = {"anyOf": [*plain, *held]}
    return levels
