"""From OpenAI's chat request to a question of the port."""

import json
from typing import Any

from pydantic import ValidationError

from gpu_workers.serve.port import MustCall, MustFit, Question, spelled
from processors.tuning.names import tuned_model
from rillfold.v1.errors import BadRequest
from rillfold.v1.forms import HARMLESS, REFUSED, ChatRequest, ContentPart, NamedTool
from schemas.codec.primitives import sane_company
from schemas.company import Message, ToolUse
from schemas.near import near

MAX_TOKENS = 512
SCHEMA_LETTERS = 100_000
"""A grammar is made of the schema before anything is said: OpenAI's own bound is of this size."""
ANY_OBJECT = '{"type":"object"}'
FORCED = "required"
NAME_LETTERS = 80


def company_of(header: str | None) -> str | None:
    """For whom the API asks. Whoever has the operator's token is believed."""
    if header is None or sane_company(header):
        return header
    raise BadRequest("the company is no name of a company.", "company")


def question_of(body: ChatRequest, base: str, id_: str, dice: int, company: str | None = None) -> Question:
    """Raises `BadRequest`. `dice` is the seed of a caller who gave none."""
    _refuse(body.model_extra or {})
    adapter, version = _named_model(body.model, base)
    return Question(
        id=id_,
        messages=tuple(_messages(body)),
        tools=_tools(body),
        adapter=adapter,
        version=version,
        max_tokens=body.max_completion_tokens or body.max_tokens or MAX_TOKENS,
        temperature=body.temperature or 0.0,
        top_p=body.top_p or 1.0,
        top_k=max(0, body.top_k or 0),
        min_p=body.min_p or 0.0,
        seed=dice if body.seed is None else body.seed,
        stop=tuple(body.stop or ()),
        logprobs=_logprobs(body),
        must=_must(body),
        priority=body.priority or 0,
        within=body.within,
        company=company,
    )


def _named_model(model: str, base: str) -> tuple[str | None, int | None]:
    """Whatever is not the base's name is an adapter's, and unknown if there is none."""
    if model == base:
        return None, None
    tuned = tuned_model(model)
    if tuned is None:
        return spelled(model)
    if tuned.base != base:
        told = f"{model[:NAME_LETTERS]!r} was tuned from {tuned.base[:NAME_LETTERS]!r}, and here {base!r} answers."
        raise BadRequest(told, "model", "model_not_found")
    return tuned.adapter, tuned.version


def _refuse(more: dict[str, Any]) -> None:
    for name, (allowed, remedy) in REFUSED.items():
        if (given := more.get(name)) not in allowed:
            told = " over 1" if name == "n" and isinstance(given, int) and given > 1 else ""
            raise BadRequest(f"{name}{told} is not supported here: {remedy}.", name, "unsupported_parameter")
    for name, given in more.items():
        if given is not None and name not in REFUSED and name not in HARMLESS:
            raise BadRequest(_unknown(name), name[:NAME_LETTERS], "unknown_parameter")


def _unknown(name: str) -> str:
    """A field that nobody reads would change the answer unseen, or was meant to."""
    close = near(name, ChatRequest.model_fields)
    remedy = f"did you mean {close[0]}? Write that, or leave it out" if close else "leave it out"
    return f"{name[:NAME_LETTERS]!r} is no field that is known here: {remedy}."


def _messages(body: ChatRequest) -> list[Message]:
    names = {call.id: call.function.name for message in body.messages for call in message.tool_calls or ()}
    return [
        Message(
            role="system" if message.role == "developer" else message.role,
            content=_text(message.content),
            tool_calls=tuple(
                ToolUse(name=call.function.name, arguments=call.function.arguments) for call in message.tool_calls or ()
            ),
            name=names.get(message.tool_call_id or "", message.name),
        )
        for message in body.messages
    ]


def _text(content: str | list[ContentPart] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.type != "text":
            raise BadRequest(f"content of type {part.type!r} cannot be read here, only text.", "messages")
    return "".join(part.text for part in content)


def _tools(body: ChatRequest) -> str | None:
    return _written(body.tools, "tools") if body.tools and body.tool_choice != "none" else None


def _written(value: Any, param: str) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        raise BadRequest(f"{param} is nested too deep.", param) from None


def _logprobs(body: ChatRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true.", "top_logprobs")
    return None


def _must(body: ChatRequest) -> MustCall | MustFit | None:
    """A call that is asked for comes before a form: the form is the content's, and there is none beside a call."""
    call, fit = _call(body), _fit(body)
    if fit and not call and body.tools and body.tool_choice != "none":
        raise BadRequest(
            "response_format beside tools that may be called or not is not supported here: "
            "set tool_choice to none, required or a tool.",
            "response_format",
            "unsupported_parameter",
        )
    return call or fit


def _call(body: ChatRequest) -> MustCall | None:
    choice = body.tool_choice
    if choice in (None, "auto", "none"):
        return None
    tool = None if choice == FORCED else _named(choice)
    names = [_name(tool) for tool in body.tools or ()]
    if not names:
        raise BadRequest("tool_choice asks for a call, and there are no tools.", "tool_choice")
    if tool is not None and tool not in names:
        raise BadRequest(f"tool_choice names {tool!r}, and tools have no such function.", "tool_choice")
    return MustCall(tool=tool)


def _named(choice: str | dict[str, Any] | None) -> str:
    try:
        return NamedTool.model_validate(choice).function.name
    except ValidationError:
        told = 'tool_choice is none, auto, required or {"type": "function", "function": {"name": ...}} here.'
        raise BadRequest(told, "tool_choice") from None


def _name(tool: dict[str, Any]) -> str:
    """Who has to call one must know what each is called."""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if tool.get("type", "function") != "function" or not isinstance(name, str) or not name:
        told = (
            'each tool is {"type": "function", "function": {"name": ..., "parameters": ...}} where one must be called.'
        )
        raise BadRequest(told, "tools")
    return name


def _fit(body: ChatRequest) -> MustFit | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return MustFit(schema=ANY_OBJECT)
    if form.json_schema is None:
        raise BadRequest("response_format of type json_schema needs json_schema.", "response_format.json_schema")
    param = "response_format.json_schema.schema"
    if len(written := _written(form.json_schema.content, param)) > SCHEMA_LETTERS:
        raise BadRequest(f"the schema has {len(written)} letters, and at most {SCHEMA_LETTERS} are read.", param)
    return MustFit(schema=written)
