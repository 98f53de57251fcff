"""What a tool would answer, by the schema of what it returns: the same call always gets the same answer."""

from collections.abc import Mapping
from typing import Any

from processors.parameters import canonical
from processors.synthetic.definition import ToolDefinition, mistake_in, mistake_in_result
from processors.synthetic.lots import Lots
from processors.synthetic.values import Drawing, Json


class NotExecuted(ValueError):
    """A call that the tool would refuse."""


def executed(tools: Mapping[str, ToolDefinition], name: str, arguments: Json, side: int) -> Any:
    """Raises NotExecuted. An example's own output, where it was called so."""
    tool = tools.get(name)
    if tool is None:
        raise NotExecuted(f"there is no tool {name!r}")
    if wrong := mistake_in(arguments, tool.parameters):
        raise NotExecuted(wrong)
    for example in tool.examples:
        if "output" in example and canonical(example["arguments"]) == canonical(arguments):
            return example["output"]
    if not tool.returns:
        return {"status": "done"}
    lots = Lots("answer", name, canonical(arguments))
    result = _echoed(Drawing(tool.returns, lots, side, optional=1.0).value(tool.returns, "result"), arguments)
    if wrong := mistake_in_result(result, tool):
        raise NotExecuted(wrong)
    return result


def _echoed(result: Any, arguments: Json) -> Any:
    """What was asked about stands in the answer as it was said."""
    if not isinstance(result, dict):
        return result
    return {
        key: arguments[key] if key in arguments and type(arguments[key]) is type(value) else value
        for key, value in result.items()
    }
