"""The model proposes, the gate disposes: only a schema-valid call of a tool that the company offers goes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry

from processors.errors import UnusableSchema
from schemas.company import ToolRegistered, ToolUse

SCHEMA_CHARS = 32_000
ARGUMENT_CHARS = 16_000
# Depth of the arguments, and of the schema with its references written out: both bound the work of one check.
DEPTH = 32
EXPANDED_NODES = 5_000
# A company's own regular expression could stall the process that serves everybody.
NOT_RUN = ("pattern", "patternProperties")
COMPOSED = ("allOf", "anyOf", "oneOf", "not", "if", "$ref", "unevaluatedProperties", "patternProperties")

Json = dict[str, Any]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a job sees it. `registered` is the place in the log where it was offered."""

    name: str
    description: str = ""
    parameters: Json
    registered: str = ""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The call may go out. Arguments are canonical JSON text now."""

    tool: str
    arguments: str


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """The call stays here."""

    reason: str
    """malformed_call, several_calls, unknown_tool, arguments_too_large, invalid_arguments or unusable_schema."""
    detail: str = ""


def snapshot(tools: Iterable[tuple[ToolRegistered, str]]) -> str:
    """The tools of a company, each with its place in the log, as a job carries them: canonical, sorted by name."""
    offers = [offer for tool, place in tools if (offer := _offer(tool, place))]
    return canonical(sorted(offers, key=lambda offer: offer.name))


def _offer(tool: ToolRegistered, place: str) -> Offer | None:
    """A tool that can never be called is not offered: whoever registered it past the API did not check it."""
    try:
        parameters = parameters_of(tool)
        check_parameters(parameters)
    except UnusableSchema:
        return None
    return Offer(name=tool.name, description=tool.description, parameters=parameters, registered=place)


def offers(text: str) -> Mapping[str, Offer]:
    return {offer.name: offer for offer in msgspec.json.decode(text, type=list[Offer])}


def parameters_of(tool: ToolRegistered) -> Json:
    try:
        return msgspec.json.decode(tool.parameters or "{}", type=Json)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnusableSchema(f"the parameters of {tool.name} are not a JSON object: {error}") from error


def check(call: ToolUse, allowed: Mapping[str, Offer]) -> Allowed | Denied:
    """`allowed` holds one company's tools and nobody else's."""
    offer = allowed.get(call.name)
    if offer is None:
        return Denied(reason="unknown_tool", detail=f"{call.name!r} is not offered by this company")
    if len(call.arguments) > ARGUMENT_CHARS:
        return Denied(
            reason="arguments_too_large", detail=f"{len(call.arguments)} characters, at most {ARGUMENT_CHARS}"
        )
    try:
        arguments = msgspec.json.decode(call.arguments, type=Json)
        validator = _validator(canonical(offer.parameters))
    except UnusableSchema as error:
        return Denied(reason="unusable_schema", detail=str(error))
    except (msgspec.DecodeError, RecursionError) as error:
        return Denied(reason="malformed_call", detail=str(error))
    if _deeper(arguments, DEPTH):
        return Denied(reason="invalid_arguments", detail=f"the arguments are deeper than {DEPTH}")
    wrong = next(iter(validator.iter_errors(arguments)), None)
    if wrong is not None:
        return Denied(reason="invalid_arguments", detail=f"{wrong.json_path}: {wrong.message}"[:500])
    return Allowed(tool=call.name, arguments=canonical(arguments))


def check_parameters(parameters: Json) -> None:
    """Raises `UnusableSchema` where a tool's parameters could never be checked safely."""
    if parameters.get("type", "object") != "object":
        raise UnusableSchema(f"the parameters describe a {parameters['type']}, and a call's arguments are an object")
    _validator(canonical(parameters))


def canonical(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


@lru_cache(maxsize=512)
def _validator(schema_text: str) -> Draft202012Validator:
    if len(schema_text) > SCHEMA_CHARS:
        raise UnusableSchema(f"the parameters take {len(schema_text)} characters, at most {SCHEMA_CHARS} are checked")
    schema = msgspec.json.decode(schema_text, type=Json)
    _bounded(schema, schema, 0, [EXPANDED_NODES])
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UnusableSchema(f"the parameters are not a JSON schema: {error.json_path}: {error.message}") from error
    # An empty registry: nothing is ever fetched.
    return Draft202012Validator(_closed({"type": "object", "properties": {}} | schema), registry=Registry())


def _bounded(node: object, root: Json, depth: int, left: list[int]) -> None:
    """Walks the schema with its references written out: cycles and doublings run into the bounds."""
    left[0] -= 1
    if depth > DEPTH or left[0] < 0:
        raise UnusableSchema(f"the parameters are deeper than {DEPTH} or larger than {EXPANDED_NODES} nodes")
    if isinstance(node, list):
        for item in node:
            _bounded(item, root, depth + 1, left)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name in NOT_RUN and (name == "patternProperties" or isinstance(value, str)):
            raise UnusableSchema(f"{name!r} is not run here; use enum, const, minLength or maxLength instead")
        points = name in ("$ref", "$dynamicRef", "$recursiveRef", "$id")
        _bounded(_local(name, value, root) if points else value, root, depth + 1, left)


def _local(name: str, value: object, root: Json) -> object:
    if name != "$ref" or not isinstance(value, str) or not value.startswith("#/"):
        raise UnusableSchema(f"{name} {value!r} is not followed; only a $ref that starts with '#/' is")
    node: object = root
    for part in value[2:].split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    if node is None:
        raise UnusableSchema(f"{name} {value!r} points nowhere within the parameters")
    return node


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


def _deeper(value: object, levels: int) -> bool:
    inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(item, levels - 1) for item in inner)
