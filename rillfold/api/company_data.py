"""Training data as people send it, and the company-data events that it becomes."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from processors.parameters import canonical
from rillfold.http.forms import MESSAGES, TOOL_CALLS, Strict
from schemas.company import AgentOutputIngested, ConversationIngested, Message, Role, TextIngested, ToolUse
from schemas.envelope import Event


class FunctionBody(Strict):
    name: str
    arguments: dict[str, Any] = Field(default={})

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_object(cls, given: object) -> object:
        """The OpenAI API writes them as JSON text."""
        try:
            return msgspec.json.decode(given) if isinstance(given, str) else given
        except msgspec.DecodeError as error:
            raise ValueError(f"not JSON: {error}") from None


class CallBody(BaseModel):
    """As the OpenAI API writes it, or the bare function."""

    model_config = ConfigDict(extra="ignore")
    function: FunctionBody


Calls = Annotated[list[CallBody | FunctionBody], Field(max_length=TOOL_CALLS, fail_fast=True)]


class TurnBody(Strict):
    role: Role
    content: str | None = ""
    tool_calls: Calls = Field(default=[])
    name: str | None = None
    tool_call_id: str | None = None


class Conversation(Strict):
    """Every assistant turn is learned from."""

    messages: list[TurnBody] = Field(min_length=2, max_length=MESSAGES, fail_fast=True)


class Output(Strict):
    """One answer of an agent; learned from where it was a success."""

    prompt: str = Field(min_length=1)
    output: str = ""
    tool_calls: Calls = Field(default=[])
    success: bool = True


def data_event(given: Conversation | Output | str, agent: str, envelope: dict[str, Any]) -> Event:
    match given:
        case Conversation():
            return ConversationIngested(**envelope, agent=agent, messages=tuple(map(_message, given.messages)))
        case Output():
            return AgentOutputIngested(
                **envelope,
                agent=agent,
                prompt=given.prompt,
                output=given.output,
                tool_calls=_uses(given.tool_calls),
                success=given.success,
            )
    return TextIngested(**envelope, text=given)


def _message(turn: TurnBody) -> Message:
    return Message(role=turn.role, content=turn.content or "", tool_calls=_uses(turn.tool_calls), name=turn.name)


def _uses(calls: list[CallBody | FunctionBody]) -> tuple[ToolUse, ...]:
    functions = [call.function if isinstance(call, CallBody) else call for call in calls]
    return tuple(ToolUse(name=each.name, arguments=canonical(each.arguments)) for each in functions)
