"""The grammar of an answer, as text: one call of a tool as the chat template writes it, or JSON of a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from gpu_workers.refused import BadQuestion
from gpu_workers.serve.forms.settled import Schema, read, settled
from gpu_workers.serve.port import MustCall, MustFit
from processors.answers import CallForm
from schemas.words import LABEL, fits

GRAMMAR_LETTERS = 200_000
# As the chat template writes JSON: blanks after separators and nowhere else, and no escapes that it would not write.
_WRITTEN = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\nrtbf',
}


class Spelling(Protocol):
    """How what must be said is written in a grammar, by what the tokenizer makes of it."""

    def tag(self, text: str) -> str: ...

    def literal(self, text: str) -> str: ...


def grammar(must: MustCall | MustFit, tools: str | None, form: CallForm, spelling: Spelling) -> str:
    """Raises BadQuestion where nothing could ever be held to it."""
    lines, letters = ["%llguidance {}"], 0
    for line in _fitting(must.schema) if isinstance(must, MustFit) else _calling(_offered(must, tools), form, spelling):
        lines.append(line)
        if (letters := letters + len(line)) > GRAMMAR_LETTERS:  # at once: a schema may grow as its references are read
            raise BadQuestion(f"the answer's grammar takes over {GRAMMAR_LETTERS} letters, and no more are read.")
    return "\n".join([*lines, ""])


def _fitting(schema: str) -> Iterator[str]:
    what = "the schema"
    yield f"start: %json {_schema(settled(read(schema, what), what))}"


def _calling(tools: list[Schema], form: CallForm, spelling: Spelling) -> Iterator[str]:
    yield "start: " + " | ".join(f"call{index}" for index in range(len(tools)))
    opens, closes = spelling.tag(form.opens), spelling.tag(form.closes)
    for index, function in enumerate(tools):
        before = f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "{form.key}": '
        yield f'call{index}: {opens} {spelling.literal(before)} arguments{index} "}}" {closes}'
        yield f"arguments{index}: %json {_schema(_parameters(function))}"


def _schema(schema: Schema) -> str:
    return json.dumps({"x-guidance": _WRITTEN} | schema, ensure_ascii=True)


def _offered(must: MustCall, tools: str | None) -> list[Schema]:
    """The tools that may be called, by their names, and nothing of them read yet but those."""
    given = read(tools or "[]", "the tools")
    if not isinstance(given, list) or not given:
        raise BadQuestion("a tool must be called, and the question has no tools.")
    functions = [_function(tool) for tool in given]
    wanted = [each for each in functions if must.tool in (None, each["name"])]
    if not wanted:
        raise BadQuestion(f"the tool {must.tool!r:.200} must be called, and is not among the tools of the question.")
    return wanted


def _function(tool: Any) -> Schema:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadQuestion(f"{tool!r:.200} is no tool: it has no name.")
    if not fits(LABEL, function["name"]):
        raise BadQuestion(f"{function['name']!r:.200} cannot be called: the name of a tool is {LABEL.says}.")
    return function


def _parameters(function: Schema) -> Schema:
    what = f"the parameters of {function['name']!r:.200}"
    given = function.get("parameters") or {}
    if not isinstance(given, dict) or given.get("type", "object") != "object":
        raise BadQuestion(f"{what} describe no object, and a call's arguments are one.")
    return settled({"type": "object", "properties": {}} | given, what, in_order=True)
