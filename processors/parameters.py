"""A tool's parameters: a company's own JSON schema, checked in bounded work, and never fetched from anywhere."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from processors.errors import UnusableSchema

SCHEMA_CHARS = 32_000
# Depth of a schema with its references written out, and its nodes: both bound the work of one check.
DEPTH = 32
EXPANDED_NODES = 2_000
# Keywords applied in one check, each with what it goes through. An ordinary call takes dozens; these take some 20 ms of
# the fold, where others wait.
WORK = 10_000
# Only plain values of one kind may stand in a longer list: they are compared in order, not each with each.
LISTED = 256
# A company's own regular expression could stall the process that serves everybody.
NOT_RUN = ("pattern", "patternProperties")
POINTS = ("$ref", "$dynamicRef", "$recursiveRef", "$id")
DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
COMPOSED = ("allOf", "anyOf", "oneOf", "not", "if", "$ref", "unevaluatedProperties", "patternProperties")

Json = dict[str, Any]
Lookup = Callable[[str], object]

_left: ContextVar[int] = ContextVar("work left in this check")


def canonical(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def check_parameters(parameters: Json) -> None:
    """Raises `UnusableSchema` where a tool's parameters could never be checked safely."""
    try:
        if parameters.get("type", "object") != "object":
            raise UnusableSchema(
                f"the parameters describe {parameters['type']!r:.100}, and a call's arguments are an object"
            )
        _validator(canonical(parameters))
    except (ValueError, OverflowError, RecursionError) as error:
        # They cannot even be written.
        raise UnusableSchema(f"the parameters cannot be read: {type(error).__name__}") from error


def first_mistake(arguments: Json, parameters: Json) -> str | None:
    """What is wrong with the arguments. `UnusableSchema` where the parameters are no help in telling."""
    before = _left.set(WORK)
    try:
        wrong = next(_validator(canonical(parameters)).iter_errors(arguments), None)
        return None if wrong is None else f"{wrong.json_path}: {wrong.message}"
    except UnusableSchema:
        raise
    except Exception as error:
        # The company's own schema, read by a library that takes schemas to be sane.
        raise UnusableSchema(f"the parameters cannot be applied: {type(error).__name__}") from error
    finally:
        _left.reset(before)


def _validator(schema_text: str) -> Any:
    judged = _judged(schema_text)
    if isinstance(judged, str):
        raise UnusableSchema(judged)
    return judged


@lru_cache(maxsize=512)
def _judged(schema_text: str) -> Any:
    """A validator, or why there is none: a schema that cannot be used costs its work once, too."""
    try:
        return _read(schema_text)
    except UnusableSchema as error:
        return str(error)
    except Exception as error:
        # Read by libraries that take schemas to be sane: an `$id` that is no text is an AttributeError.
        return f"the parameters cannot be read: {type(error).__name__}"


def _read(schema_text: str) -> Any:
    if len(schema_text) > SCHEMA_CHARS:
        raise UnusableSchema(f"the parameters take {len(schema_text)} characters, at most {SCHEMA_CHARS} are checked")
    schema = msgspec.json.decode(schema_text, type=Json)
    if deeper(schema, DEPTH):
        raise UnusableSchema(f"the parameters are deeper than {DEPTH}")
    # One draft for all of it, whatever the schema calls itself.
    closed = _closed({"type": "object", "properties": {}} | schema)
    closed.pop("$schema", None)
    # What is walked here is the very document that is checked against, and its references are followed by the very
    # reader that the check uses: nothing else is reached.
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(closed))
    _Walk(lambda reference: resolver.lookup(reference).contents).through(closed, 0)
    _check_schema(schema)
    # An empty registry: nothing is ever fetched.
    return _counting()(closed, registry=Registry())


def _check_schema(schema: Json) -> None:
    """In Rust: in Python this alone takes more than a second of a schema that is as large as it may be."""
    try:
        jsonschema_rs.meta.validate(schema | DRAFT)
    except jsonschema_rs.ValidationError as error:
        place = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in error.instance_path)
        raise UnusableSchema(f"the parameters are not a JSON schema: ${place}: {error.message}"[:340]) from error


class _Walk:
    """Through a schema with its references written out: cycles and doublings run into the bounds."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._left = EXPANDED_NODES

    def through(self, node: object, depth: int) -> None:
        self._left -= 1
        if depth > DEPTH or self._left < 0:
            raise UnusableSchema(f"the parameters are deeper than {DEPTH} or larger than {EXPANDED_NODES} nodes")
        if isinstance(node, list):
            self._list(node, depth)
        elif isinstance(node, dict):
            for name, value in node.items():
                if name in NOT_RUN and (name == "patternProperties" or isinstance(value, str)):
                    raise UnusableSchema(f"{name!r} is not run here; use enum, const, minLength or maxLength instead")
                if name == "$schema" and isinstance(value, str):
                    raise UnusableSchema("only the whole of the parameters may name its $schema")
                self.through(self._target(name, value) if name in POINTS else value, depth + 1)

    def _list(self, node: list[object], depth: int) -> None:
        if len(node) > LISTED and {type(item) for item in node} not in ({str}, {int}, {float}):
            raise UnusableSchema(f"a list of more than {LISTED} holds texts alone or numbers alone")
        for item in node:
            self.through(item, depth + 1)

    def _target(self, name: str, value: object) -> object:
        if name != "$ref" or not isinstance(value, str) or not value.startswith("#/"):
            raise UnusableSchema(f"{name} {value!r:.100} is not followed; only a $ref that starts with '#/' is")
        try:
            found = self._lookup(value)
        except (Unresolvable, ValueError, TypeError) as error:
            raise UnusableSchema(f"{name} {value!r:.100} points nowhere within the parameters") from error
        if not isinstance(found, dict | bool):
            raise UnusableSchema(f"{name} {value!r:.100} does not point to a schema")
        return found


def _closed(schema: Any) -> Any:
    """What is not described is not sent: additionalProperties is false unless the company said otherwise."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for group in ("properties", "$defs"):
        if isinstance(closed.get(group), dict):
            closed[group] = {name: _closed(value) for name, value in closed[group].items()}
    if "properties" in closed and not any(word in closed for word in COMPOSED):
        closed.setdefault("additionalProperties", False)
    if "items" in closed:
        closed["items"] = _closed(closed["items"])
    return closed


@lru_cache(maxsize=1)
def _counting() -> Any:
    """The validator, with every keyword counted: a bound in steps, so that a replay decides alike."""
    counted = {name: _counted(name, run) for name, run in Draft202012Validator.VALIDATORS.items()}
    return extend(Draft202012Validator, counted)  # type: ignore[no-untyped-call]


def _counted(name: str, run: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(_cost(name, value, instance))
        for error in run(validator, value, instance, schema) or ():
            # Each carries a copy of what it is about.
            _spend((len(error.message) + sum(len(within.message) for within in error.context or ())) // 64)
            yield error

    return counted


def _spend(work: int) -> None:
    if (left := _left.get() - 1 - work) < 0:
        raise UnusableSchema(f"the parameters take more than {WORK} steps to check these arguments against")
    _left.set(left)


def _cost(name: str, value: Any, instance: Any) -> int:
    """What a keyword goes through by itself; what it descends to is counted there."""
    if name in ("enum", "const"):
        return nodes(value)
    if name == "uniqueItems" and isinstance(instance, list):
        plain = {type(item) for item in instance} in ({str}, {int}, {float})
        return len(instance) if plain else len(instance) * nodes(instance) // 4
    own = (len(value) if isinstance(value, dict | list) else 0) + (
        len(instance) if isinstance(instance, dict | list) else 0
    )
    # It applies the schema around it a second time, uncounted in parts.
    return own * EXPANDED_NODES // 50 if name.startswith("unevaluated") else own


def nodes(value: object) -> int:
    return 1 + sum(map(nodes, _inner(value)))


def deeper(value: object, levels: int) -> bool:
    return levels < 0 or any(deeper(item, levels - 1) for item in _inner(value))


def _inner(value: object) -> list[object]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
