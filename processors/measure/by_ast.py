"""An answer by the rules of the Berkeley leaderboard, beside its exact match: the calls of one answer may come in any
order, and what is written alike is the same.

A case of ours has one right answer, and tools as JSON Schema describes them: both are put into the leaderboard's form,
and its verdict decides. Words that nobody wants before a call make it no list of calls, as where the leaderboard asks a
model for calls and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from processors.answers import Malformed, Spoken, ToolCalls, parse
from processors.measure.berkeley import Called, Tool, verdict
from schemas.company import Message

SCALARS: Mapping[Any, str] = {"string": "string", "integer": "integer", "number": "float", "boolean": "boolean"}
"""JSON Schema's word for a type, and the leaderboard's."""
OF_VALUES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "float", list: "array", dict: "dict"}
ANY = "any"


def right_by_ast(expected: Message | None, offered: str | None, predicted: str) -> bool:
    """`offered`: the tools, as JSON. What they do not say of an argument's type, the right value does."""
    meant = parse(predicted)
    if expected is None or not expected.tool_calls:
        return verdict("irrelevance", (), _output(meant)).right
    if isinstance(meant, ToolCalls) and meant.text and not expected.content:
        return False
    wanted = [Called(call.name, json.loads(call.arguments)) for call in expected.tool_calls]
    accepted = [{name: {each: [_values(value)] for each, value in given.items()}} for name, given in wanted]
    return verdict("parallel" if len(wanted) > 1 else "simple", _tools(wanted, offered), _output(meant), accepted).right


def _output(meant: Spoken | ToolCalls | Malformed) -> list[dict[str, Any]] | None:
    """None: it is no list of calls."""
    if isinstance(meant, ToolCalls):
        return [{call.name: json.loads(call.arguments)} for call in meant.calls]
    return [] if isinstance(meant, Spoken) else None


def _tools(wanted: Sequence[Called], offered: str | None) -> list[Tool]:
    """Those that are wanted, with the arguments that are: any other is one too many, whatever the tool has."""
    described = _described(offered)
    properties: dict[str, dict[str, Any]] = {}
    for name, arguments in wanted:
        known, own = described.get(name, {}), properties.setdefault(name, {})
        own.update({each: _type(known.get(each), value) for each, value in arguments.items() if each not in own})
    return [{"name": name, "parameters": {"properties": each}} for name, each in properties.items()]


def _described(offered: str | None) -> Mapping[str, Mapping[str, Any]]:
    """By tool, its arguments."""
    tools = json.loads(offered) if offered else []
    functions = [tool.get("function", tool) for tool in tools]
    return {each["name"]: (each.get("parameters") or {}).get("properties") or {} for each in functions}


def _type(schema: Any, value: Any) -> dict[str, Any]:
    """Of a list or an object the value says that it is one; of anything else the tool does, where it says so."""
    kind = OF_VALUES.get(type(value), ANY)
    if kind == "array":
        inner = next((OF_VALUES.get(type(each), ANY) for each in value), ANY)
        return {"type": kind, "items": {"type": inner if inner == "dict" else _said(_items(schema), inner)}}
    return {"type": kind if kind == "dict" else _said(schema, kind)}


def _said(schema: Any, otherwise: str) -> str:
    said = schema.get("type") if isinstance(schema, dict) else None
    return SCALARS.get(said, otherwise) if isinstance(said, str) else otherwise


def _items(schema: Any) -> Any:
    return schema.get("items") if isinstance(schema, dict) else None


def _values(value: Any) -> Any:
    """Of an object each value is a list of those that are accepted."""
    if isinstance(value, dict):
        return {key: [each] for key, each in value.items()}
    return [_values(each) if isinstance(each, dict) else each for each in value] if isinstance(value, list) else value
