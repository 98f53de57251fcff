"""A tool as somebody describes it who has no data of it, and what is wrong with such a description."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from processors.errors import UnusableSchema
from processors.parameters import check_parameters, first_mistake
from processors.synthetic import patterns
from processors.synthetic.lots import Lots
from processors.synthetic.values import LEARNED, MEASURED, Drawing, Json, Unsatisfiable, leaves
from schemas.errors import Stop
from schemas.words import REGISTERED

TRIALS = 12
"""Arguments that are drawn before a schema is believed."""
EXAMPLE: Json = {
    "name": "book_pickup",
    "description": "Book the pickup of a parcel.",
    "parameters": {
        "type": "object",
        "properties": {"address": {"type": "string"}, "weight_kg": {"type": "integer", "minimum": 1, "maximum": 900}},
        "required": ["address", "weight_kg"],
    },
    "returns": {"type": "object", "properties": {"pickup_id": {"type": "string"}}, "required": ["pickup_id"]},
    "examples": [
        {
            "input": "Please collect 12 kg at 4 Mill Road.",
            "arguments": {"address": "4 Mill Road", "weight_kg": 12},
            "output": {"pickup_id": "P-10001"},
        }
    ],
}
"""Of a description."""


class UnusableTool(Stop):
    """A description of which no right call can be made, with what is wrong with it."""


class ToolDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """`parameters` and `returns` are JSON schemas; an example has `input`, `arguments` and, if you like, `output`."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    returns: dict[str, Any] = {}
    examples: list[dict[str, Any]] = []


def must_be_usable(tools: Sequence[ToolDefinition]) -> None:
    """Raises UnusableTool with the first thing that is wrong, in one line."""
    if not tools:
        raise UnusableTool(
            "There is no tool: describe one at least, with its name and the JSON schema of its arguments."
        )
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UnusableTool(f"Two tools are called {twice!r}: give each a name of its own.")
    for tool in tools:
        if not re.fullmatch(REGISTERED, tool.name):
            raise UnusableTool(
                f"A tool cannot be called {tool.name!r:.100}: a name is 1 to 64 letters (a to z), digits, _ . or -, a "
                f"letter or _ first, as where tools are registered."
            )
        _must_have_parameters(tool)
        _must_be_satisfiable(tool)
        for number, example in enumerate(tool.examples, 1):
            _must_agree(tool, number, example)


def mistake_in(arguments: Json, schema: Json) -> str | None:
    """By the schema and its patterns, which are not run where tools are really called."""
    if wrong := first_mistake(arguments, without_patterns(schema)):
        return wrong
    for name, value, below in leaves(arguments, schema):
        if isinstance(value, str) and (pattern := below.get("pattern")) and not patterns.fits(pattern, value):
            return f"$.{name.replace(' ', '.')}: {value!r:.100} does not fit the pattern {pattern!r}"
    return None


def mistake_in_result(result: object, tool: ToolDefinition) -> str | None:
    return mistake_in({"result": result}, _result_schema(tool)) if tool.returns else None


def without_patterns(schema: Any) -> Any:
    """The gate of calls does not run them: they hold for what is made, and are checked there."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if not (key == "pattern" and isinstance(value, str))}
        return {key: without_patterns(value) for key, value in kept.items()}
    return [without_patterns(each) for each in schema] if isinstance(schema, list) else schema


def _must_have_parameters(tool: ToolDefinition) -> None:
    if not isinstance(tool.parameters.get("properties"), dict) or not tool.parameters["properties"]:
        raise UnusableTool(
            f"Tool {tool.name!r} has no parameters, so no call of it can be told from another: give it "
            'parameters={"type": "object", "properties": {...}} with one property at least.'
        )


def _must_be_satisfiable(tool: ToolDefinition) -> None:
    for what, schema in (("parameters", tool.parameters), ("returns", _result_schema(tool))):
        try:
            check_parameters(without_patterns(schema))
            for trial in range(TRIALS):
                for side in (LEARNED, MEASURED):
                    arguments = Drawing(schema, Lots("trial", tool.name, trial), side).arguments()
                    if wrong := mistake_in(arguments, schema):
                        raise Unsatisfiable(f"what was drawn from it breaks it: {wrong}")
        except (UnusableSchema, Unsatisfiable, TypeError, ValueError, AttributeError) as error:
            raise UnusableTool(
                f"The {what} of tool {tool.name!r} cannot be satisfied: {error!s:.300}. Correct the schema."
            ) from error


def _must_agree(tool: ToolDefinition, number: int, example: Json) -> None:
    where = f"Example {number} of tool {tool.name!r}"
    if not isinstance(example.get("input"), str) or not isinstance(example.get("arguments"), dict):
        raise UnusableTool(f"{where} is not usable: it has `input`, a text, and `arguments`, an object.")
    if wrong := mistake_in(example["arguments"], tool.parameters):
        raise UnusableTool(f"{where} contradicts its parameters: {wrong:.300}. Correct one of the two.")
    if "output" in example and (wrong := mistake_in_result(example["output"], tool)):
        raise UnusableTool(f"{where} contradicts its returns: {wrong:.300}. Correct one of the two.")


def _result_schema(tool: ToolDefinition) -> Json:
    return {"type": "object", "properties": {"result": tool.returns or {"type": "string"}}, "required": ["result"]}
