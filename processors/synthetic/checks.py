"""Three checks that every made conversation passes: its form, its execution on simulated tools, and a judge."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from processors.dataset.lessons import in_canonical_form
from processors.synthetic.definition import ToolDefinition, mistake_in
from processors.synthetic.making import Made
from processors.synthetic.saying import label_of, numbers_in, says
from processors.synthetic.simulated import NotExecuted, executed
from processors.synthetic.values import Json, leaves
from schemas.company import Message, may_speak

Tools = Mapping[str, ToolDefinition]
Judge = Callable[[Made, Tools], str | None]
"""What is wrong with a conversation, in words; None: nothing."""


def form(made: Made, tools: Tools) -> str | None:
    """Known roles, canonical calls that their schemas allow, and calls in every kind that has them."""
    for turn, message in enumerate(made.messages):
        if not may_speak(message.role, turn) or in_canonical_form(message) != message:
            return f"message {turn} is not in canonical form"
        for use in message.tool_calls:
            if use.name not in tools:
                return f"there is no tool {use.name!r}"
            if wrong := mistake_in(msgspec.json.decode(use.arguments), tools[use.name].parameters):
                return wrong
    called = sum(len(message.tool_calls) for message in made.messages)
    wanted = {"single": 1, "parallel": 2, "chained": 2, "irrelevant": 0, "missing": 1}[made.kind]
    return None if called == wanted else f"{called} calls where {wanted} are right"


def execution(made: Made, tools: Tools) -> str | None:
    """Each call runs, and each result that stands there is what the tool answers."""
    waiting: list[str] = []
    for message in made.messages:
        if message.role == "tool":
            if not waiting or message.content != waiting.pop(0):
                return f"{message.name} would answer otherwise"
            continue
        try:
            for use in message.tool_calls:
                arguments = msgspec.json.decode(use.arguments)
                result = executed(tools, use.name, arguments, made.side)
                waiting.append(msgspec.json.encode(result, order="deterministic").decode())
        except NotExecuted as error:
            return str(error)
    return None


def by_rules(made: Made, tools: Tools) -> str | None:
    """A request names the value of every argument, what is missing it does not name, and no number is from nowhere."""
    if made.kind == "missing" and (said := _unasked(made, tools)):
        return said
    heard, known, numbers = "", list[Any](), set[str]()
    for message in made.messages:
        if message.role == "user":
            heard += f" {message.content}"
        elif message.role == "tool":
            known += [value for _, value, _ in leaves(msgspec.json.decode(message.content), {})]
        for name, value, schema in _values(message, tools):
            numbers |= set(numbers_in(str(value)))
            if "const" not in schema and value not in known and not says(heard, value, label_of(name)):
                return f"nobody says {name} {value!r:.100}"
    if made.kind != "irrelevant" and (odd := [each for each in numbers_in(heard) if each not in numbers]):
        return f"{odd[0]} is asked for, and nobody is told"
    return None


def _unasked(made: Made, tools: Tools) -> str | None:
    """The whole of a request that is to lack something."""
    values = [value for value in _values(made.messages[-1], tools) if "const" not in value[2]]
    if all(says(made.question, value, label_of(name)) for name, value, _ in values):
        return "nothing is missing"
    return None


def _values(message: Message, tools: Tools) -> Iterator[tuple[str, object, Json]]:
    for use in message.tool_calls:
        yield from leaves(msgspec.json.decode(use.arguments), tools[use.name].parameters)
