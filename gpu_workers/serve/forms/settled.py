"""A JSON schema as the grammar takes it: bounded, its references written out, and nothing in it that could not be kept.

What is settled is never wider than what was given: whatever fits it fits the given schema too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from llguidance import LLMatcher

from gpu_workers.refused import BadQuestion
from gpu_workers.serve.forms.numbers import LARGEST_INTEGER, LARGEST_NUMBER, bounded, hard_step
from schemas.words import DEEPEST, depth, size

Schema = dict[str, Any]

SCHEMA_BYTES = 64_000
DEPTH = 32
NODES = 5_000
"""Of one schema with its references written out."""
PATTERN_LETTERS = 1_000
PROPERTIES = 400
"""Of one object: each that may be left out makes every step wider."""
PATTERNS, PROOFS = 8, 1_000
"""Patterns of properties of one object; and how often it has to be shown, in one schema, that two of them, or one and a
name, never mean the same property: each time is work that nothing else bounds."""
ANY_LEVELS = 8
"""So deep is a value that the schema says nothing about."""

_OBJECT = ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties")
_ARRAY = ("items", "prefixItems", "minItems", "maxItems")
_STRING = ("pattern", "minLength", "maxLength", "format")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_EITHER = ("anyOf", "oneOf")
_KEPT = {"type", "const", "enum", *_OBJECT, *_ARRAY, *_STRING, *_NUMBER, *_EITHER}
# They speak of the words beside them, and mean something else beside those of another schema.
_OF_THEIR_OWN = {"additionalProperties", "patternProperties", "prefixItems"}
# They narrow what fits, and the grammar cannot keep them: to leave one out would be a promise broken in silence.
_NOT_HELD = {
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames",
    "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
    "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
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
        self._left, self._proofs = NODES, PROOFS
        self._any = False
        self._at: list[str] = []
        """Where it reads, by the names of properties, for whoever has to find what is wrong."""

    def whole(self) -> Schema:
        if (bytes_ := size(msgspec.json.encode(self._root).decode())) > SCHEMA_BYTES:
            raise self._refuse(f"it takes {bytes_} bytes, and at most {SCHEMA_BYTES} are read")
        schema: Schema = self._settle(self._root, 0, False)
        return schema | {"$defs": _anything()} if self._any else schema

    def _refuse(self, why: str) -> BadQuestion:
        place = f" at {'.'.join(self._at)!r:.200}" if self._at else ""
        return BadQuestion(f"{self._what}{place}: {why}.")

    def _settle(self, node: object, level: int, beyond: bool | None) -> Any:
        """`beyond`: what becomes of an object's other keys where it does not say; None: the schema around it says."""
        self._spend(level)
        if node is False:
            return {"enum": []} if level == 0 else False
        plain = self._plain(node, level)
        return self._described(plain, level, beyond) if plain else self._anything()

    def _spend(self, level: int) -> None:
        self._left -= 1
        if level > DEPTH or self._left < 0:
            raise self._refuse(
                f"it leads back to itself, or is deeper than {DEPTH} or larger than {NODES} nodes, with all that "
                "it refers to written out"
            )

    def _plain(self, node: object, level: int) -> Schema:
        """Its own words, and those of whatever else must hold of the same value."""
        self._spend(level)
        if node is True:
            return {}
        if not isinstance(node, dict):
            raise self._refuse(f"{node!r:.100} is no schema")
        if unheld := sorted(name for name in _NOT_HELD & node.keys() if node[name] is not False):
            raise self._refuse(f"{unheld[0]!r} cannot be held to while an answer is made; leave it out")
        if level and "$id" in node:
            raise self._refuse("only the whole of it may have an '$id'")
        self._types(node)
        own = {name: value for name, value in node.items() if name in _KEPT}
        others = [self._target(node["$ref"])] if "$ref" in node else []
        others += self._listed(node.get("allOf", []))
        return self._joined([own, *(self._plain(other, level + 1) for other in others)])

    def _joined(self, parts: list[Schema]) -> Schema:
        joined: Schema = {}
        for name, value in (member for part in parts for member in part.items()):
            joined[name] = self._both(name, joined.get(name, value), value)
        holders = [part for part in parts if any(name in part for name in (*_OBJECT, *_ARRAY))]
        if len(holders) > 1 and (own := sorted(_OF_THEIR_OWN & joined.keys())):
            raise self._refuse(f"{own[0]!r} stands in one of several parts of an allOf or beside a $ref; join them")
        return joined

    def _both(self, name: str, there: Any, here: Any) -> Any:
        """What a word says that two parts say."""
        if there == here:
            return there
        if name == "required" and isinstance(there, list) and isinstance(here, list):
            return there + [each for each in here if each not in there]
        if name == "properties" and isinstance(there, dict) and isinstance(here, dict):
            return there | {key: self._both(f"property {key:.100}", there.get(key, it), it) for key, it in here.items()}
        raise self._refuse(f"{name!r} stands in two parts of an allOf or beside a $ref; write it once")

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise self._refuse(f"$ref {reference!r:.100} is not followed; only one that starts with '#/' is")
        found = self._root
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise self._refuse(f"$ref {reference!r:.100} points nowhere within it")
            found = found[name]
        return found

    def _described(self, node: Schema, level: int, beyond: bool | None) -> Schema:
        if "const" in node or "enum" in node:
            return self._chosen(node)
        kinds = _kinds(node)
        done = {name: value for name, value in node.items() if name not in (*_OBJECT, *_ARRAY, *_EITHER)}
        if kinds:
            done["type"] = node.get("type", kinds[0])
        if "number" in kinds or "integer" in kinds:
            step = node.get("multipleOf", 1)
            if why := hard_step(step):
                raise self._refuse(f"multipleOf is {step!r:.100}, {why}")
            done = bounded(done, LARGEST_NUMBER if "number" in kinds else LARGEST_INTEGER)
        if "format" in done and done["format"] not in _FORMATS:
            del done["format"]
        self._pattern(node.get("pattern"))
        if "object" in kinds:
            done |= self._object(node, level, beyond)
        if "array" in kinds:
            done |= self._array(node, level)
        inner = None if any(name in node for name in _OBJECT) else beyond
        either = {name: self._each(node[name], level, inner) for name in _EITHER if name in node}
        done |= either
        if "oneOf" in either and "oneOf" in _why_not(done | ({"$defs": _anything()} if self._any else {})):
            raise self._refuse(
                "more than one part of the 'oneOf' may fit the same value; make them differ, or use 'anyOf'"
            )
        return done

    def _types(self, node: Schema) -> None:
        given = node.get("type", [])
        for kind in given if isinstance(given, list) else [given]:
            if kind not in _TYPES:
                raise self._refuse(f"{kind!r:.100} is no type; there are {', '.join(_TYPES)}")

    def _chosen(self, node: Schema) -> Schema:
        if beside := sorted(node.keys() - {"const", "enum", "type"}):
            raise self._refuse(f"{beside[0]!r} stands beside an enum or a const, which says all; leave one of them out")
        return {name: self._value(value) for name, value in node.items()}

    def _object(self, node: Schema, level: int, beyond: bool | None) -> Schema:
        self._provable(node.get("patternProperties"), node.get("properties"))
        done: Schema = {name: node[name] for name in ("required", "minProperties", "maxProperties") if name in node}
        for group in ("properties", "patternProperties"):
            if group in node:
                done[group] = dict(self._members(node[group], level, group == "patternProperties"))
        described = "properties" in node and not any(name in node for name in (*_EITHER, "patternProperties"))
        others = node.get("additionalProperties", beyond if described or beyond is None else True)
        return done if others is None else done | {"additionalProperties": self._settle(others, level + 1, False)}

    def _members(self, members: object, level: int, patterns: bool) -> Iterator[tuple[str, Any]]:
        if not isinstance(members, dict):
            raise self._refuse(f"{members!r:.100} are no properties")
        if len(members) > PROPERTIES:
            raise self._refuse(f"an object has {len(members)} properties, and at most {PROPERTIES} are read")
        for name, schema in sorted(members.items()) if self._in_order else members.items():
            self._at.append(name)
            if patterns:
                self._pattern(name)
            yield name, self._settle(schema, level + 1, False)
            self._at.pop()

    def _provable(self, patterns: object, names: object) -> None:
        count = len(patterns) if isinstance(patterns, dict) else 0
        if count > PATTERNS:
            raise self._refuse(f"an object has {count} patternProperties, and at most {PATTERNS} are read")
        self._proofs -= count * (count + (len(names) if isinstance(names, dict) else 0))
        if self._proofs < 0:
            raise self._refuse(
                f"patternProperties stand beside too many others: patterns times names are {PROOFS} at most in all; "
                "name the properties instead"
            )

    def _array(self, node: Schema, level: int) -> Schema:
        done: Schema = {name: node[name] for name in ("minItems", "maxItems") if name in node}
        if "prefixItems" in node:
            done["prefixItems"] = self._each(node["prefixItems"], level, False)
        self._at.append("[]")
        items = self._settle(node.get("items", True), level + 1, False)
        self._at.pop()
        return done | {"items": items}

    def _each(self, schemas: object, level: int, beyond: bool | None) -> list[Any]:
        return [self._settle(schema, level + 1, beyond) for schema in self._listed(schemas)]

    def _listed(self, schemas: object) -> list[Any]:
        if not isinstance(schemas, list):
            raise self._refuse(f"{schemas!r:.100} is no list of schemas")
        return schemas

    def _pattern(self, pattern: object) -> None:
        if isinstance(pattern, str) and len(pattern) > PATTERN_LETTERS:
            raise self._refuse(f"a pattern of {len(pattern)} letters, and at most {PATTERN_LETTERS} are read")
        if pattern is not None and (why := _why_not({"type": "string", "pattern": pattern})):
            *_, last = why.splitlines()
            raise self._refuse(f"the pattern {pattern!r:.100} cannot be held to: {last.removeprefix('error: ')}")

    def _value(self, value: Any) -> Any:
        """A constant, its keys in the order that they are written in."""
        if isinstance(value, dict):
            members = sorted(value.items()) if self._in_order else value.items()
            return {name: self._value(inner) for name, inner in members}
        return [self._value(inner) for inner in value] if isinstance(value, list) else value

    def _anything(self) -> Schema:
        self._any = True
        return {"$ref": f"#/$defs/any{ANY_LEVELS}"}


def _kinds(node: Schema) -> list[str]:
    """The types that it may have. Where it names none, those that its other words are about."""
    if "type" in node:
        given = node["type"]
        return [kind for kind in given if isinstance(kind, str)] if isinstance(given, list) else [given]
    for kind, words in (("object", _OBJECT), ("array", _ARRAY), ("string", _STRING), ("number", _NUMBER)):
        if any(name in node for name in words):
            return [kind]
    return []


def _why_not(schema: Schema) -> str:
    """What the grammar's own reader says against it, without any tokens; nothing where it takes it."""
    try:
        return str(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema))))
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            return str(error) or type(error).__name__
        raise


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
