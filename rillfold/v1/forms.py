"""The part of OpenAI's chat request that is honoured. All else is refused by name, but for what changes no answer."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gpu_workers.serve.port import MAX_LOGPROBS, MAX_STOPS, PRIORITIES, STOP_LETTERS
from rillfold.http.forms import MESSAGES, PARTS, TOOL_CALLS

LARGEST = 2**31 - 1
TOOLS = 1_000
# Given and not one of these values: the caller wants something that would be missing from the answer. And what to do.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((None, 1), "ask once for each answer, each with a seed of its own"),
    "logit_bias": ((None, {}), "leave it out"),
    "presence_penalty": ((None, 0), "leave it out"),
    "frequency_penalty": ((None, 0), "leave it out"),
    "repetition_penalty": ((None, 1), "leave it out"),
    "modalities": ((None, ["text"]), "answers are text: leave it out"),
    "audio": ((None,), "answers are text: leave it out"),
    "functions": ((None, []), "use tools"),
    "function_call": ((None, "auto", "none"), "use tools and tool_choice"),
    "guided_json": ((None,), "use response_format"),
    "guided_regex": ((None,), "use response_format with a JSON schema"),
    "guided_choice": ((None,), "use response_format with a JSON schema"),
    "guided_grammar": ((None,), "use response_format with a JSON schema"),
    "structured_outputs": ((None,), "use response_format"),
    "web_search_options": ((None,), "leave it out"),
    "reasoning_effort": ((None, "none"), "nothing is thought before an answer here: leave it out"),
}
HARMLESS = frozenset({"metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
HARMLESS |= {"service_tier", "store", "user"}
"""OpenAI's clients send them; they tell a service who asks, what to keep and how fast to be, and change no answer."""


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


class NamedFunction(BaseModel):
    name: str = Field(min_length=1, max_length=300)


class NamedTool(BaseModel):
    """The tool that has to be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(BaseModel):
    """Held to, whether `strict` is said or not: a best effort is not told from it where it succeeds."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    content: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


def _listed(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


Stop = Annotated[str, Field(min_length=1, max_length=STOP_LETTERS)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True), BeforeValidator(_listed)]


class ChatRequest(BaseModel):
    """Temperature is 0 where none is given: the same question gets the same answer."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(max_length=300)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES, fail_fast=True)
    tools: Annotated[list[dict[str, Any]], Field(max_length=TOOLS, fail_fast=True)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(None, strict=True, ge=1, le=LARGEST)
    max_completion_tokens: int | None = Field(None, strict=True, ge=1, le=LARGEST)
    temperature: float | None = Field(None, strict=True, ge=0, le=2)
    top_p: float | None = Field(None, strict=True, gt=0, le=1)
    top_k: int | None = Field(None, strict=True, ge=-1, le=LARGEST)
    """0 and -1: any token, as engines with this field have it."""
    min_p: float | None = Field(None, strict=True, ge=0, le=1)
    seed: int | None = Field(None, strict=True, ge=-(2**63), lt=2**63)
    stop: Stops | None = None
    priority: int | None = Field(None, strict=True, ge=-PRIORITIES, le=PRIORITIES)
    """Among the questions of one company that wait; a lower one goes first."""
    within: float | None = Field(None, strict=True, gt=0, le=LARGEST)
    """Seconds; after them the answer is given up."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, strict=True, ge=0, le=MAX_LOGPROBS)
    stream: bool = False
    stream_options: StreamOptions | None = None
