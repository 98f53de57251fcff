"""Company data: who the company is, what it knows, which tools it owns."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from schemas.envelope import Event


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One call inside a conversation. Arguments stay canonical JSON text until a template renders them."""

    name: str
    arguments: str


Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


def may_speak(role: str, turn: int) -> bool:
    """A known role; a system message only first."""
    return role in ROLES and (role != "system" or turn == 0)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One turn of a conversation."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolUse, ...] = ()
    name: str | None = None


class ToolAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How a call authenticates. The secret itself never enters an event: only its reference."""

    kind: str
    """none, bearer, basic, api_key or header."""
    secret_ref: str | None = None
    header: str | None = None


class CompanyRegistered(Event, frozen=True, kw_only=True):
    """A company joined."""

    type: str = "company.registered"
    version: int = 1
    name: str


class TextIngested(Event, frozen=True, kw_only=True):
    """A piece of plain text."""

    type: str = "text.ingested"
    version: int = 1
    entity: str | None = None
    text: str
    source: str | None = None


class RecordIngested(Event, frozen=True, kw_only=True):
    """A structured record, as canonical JSON text."""

    type: str = "record.ingested"
    version: int = 1
    entity: str | None = None
    kind: str
    data: str


class DocumentIngested(Event, frozen=True, kw_only=True):
    """A reference to a document that lies elsewhere."""

    type: str = "document.ingested"
    version: int = 1
    entity: str | None = None
    uri: str
    media_type: str
    sha256: str | None = None
    title: str | None = None


class ConversationIngested(Event, frozen=True, kw_only=True):
    """A finished conversation of an agent."""

    type: str = "conversation.ingested"
    version: int = 1
    entity: str | None = None
    agent: str
    messages: tuple[Message, ...]


class AgentOutputIngested(Event, frozen=True, kw_only=True):
    """What an agent answered, and whether it was right: only successes are learned from."""

    type: str = "agent_output.ingested"
    version: int = 2
    entity: str | None = None
    agent: str
    prompt: str
    output: str
    tool_calls: tuple[ToolUse, ...] = ()
    success: bool
    score: float | None = None
    """0 to 1, by whoever judged it. Version 1 knew only right and wrong."""


class ToolRegistered(Event, frozen=True, kw_only=True):
    """A company offers a tool. Registering a name again replaces it."""

    type: str = "tool.registered"
    version: int = 1
    name: str
    description: str
    parameters: str
    """JSON schema of the arguments, as canonical JSON text."""
    endpoint: str
    method: str = "POST"
    auth: ToolAuth


class ToolRevoked(Event, frozen=True, kw_only=True):
    """A company withdrew a tool."""

    type: str = "tool.revoked"
    version: int = 1
    name: str
    reason: str = ""
