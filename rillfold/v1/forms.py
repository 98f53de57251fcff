"""The part of OpenAI's chat request that is honoured. What would change the answer and is not honoured is refused."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpu_workers.serve.port import Question, spelled
from rillfold.http.forms import MESSAGES, PARTS, TOOL_CALLS
from schemas.codec.primitives import sane_company
from schemas.company import Message, ToolUse

MAX_TOKENS = 512
LARGEST = 2**31 - 1
TOOLS = 1_000
# Given and not one of these values: the caller wants something that would be missing from the answer.
REFUSED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stop": (None, []),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "modalities": (None, ["text"]),
    "functions": (None, []),
}


class BadRequest(Exception):
    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


class ContentPart(BaseModel):
    type: str
    text: str = ""


class Function(BaseModel):
    name: str
    arguments: str = "{}"


class ToolCall(BaseModel):
    id: str = ""
    function: Function


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(max_length=PARTS, fail_fast=True)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=TOOL_CALLS, fail_fast=True)] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Temperature is 0 where none is given: the same question gets the same answer."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(max_length=300)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES, fail_fast=True)
    tools: Annotated[list[dict[str, Any]], Field(max_length=TOOLS, fail_fast=True)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1, le=LARGEST)
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None


def company_of(header: str | None) -> str | None:
    """For whom the API asks. Whoever has the operator's token is believed."""
    if header is None or sane_company(header):
        return header
    raise BadRequest("the company is no name of a company.", "company")


def question_of(body: ChatRequest, base: str, id_: str, dice: int, company: str | None = None) -> Question:
    """Raises `BadRequest`. `dice` is the seed of a caller who gave none."""
    for name, allowed in REFUSED.items():
        given = (body.model_extra or {}).get(name)
        if given not in allowed:
            raise BadRequest(f"{name} is not supported here; leave it out.", name, "unsupported_parameter")
    # Whatever is not the base's name is an adapter's, and unknown if there is none.
    adapter, version = (None, None) if body.model == base else spelled(body.model)
    return Question(
        id=id_,
        messages=tuple(_messages(body)),
        tools=_tools(body),
        adapter=adapter,
        version=version,
        max_tokens=body.max_completion_tokens or body.max_tokens or MAX_TOKENS,
        temperature=body.temperature or 0.0,
        top_p=body.top_p or 1.0,
        seed=dice if body.seed is None else body.seed,
        company=company,
    )


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
    if body.tool_choice not in (None, "auto", "none"):
        raise BadRequest("tool_choice can be auto or none here.", "tool_choice", "unsupported_parameter")
    try:
        return json.dumps(body.tools) if body.tools and body.tool_choice != "none" else None
    except RecursionError:
        raise BadRequest("the tools are nested too deep.", "tools") from None
