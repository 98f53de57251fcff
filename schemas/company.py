"""Company data: who the company is, what it knows, which tools it owns."""

from typing import Literal, get_args

import msgspec

from schemas.envelope import Event
from schemas.training import OffsetRange
from schemas.words import Address, Document, Id, Json, Label, Name, Note, Text


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One call inside a conversation. Arguments stay canonical JSON text until a template renders them."""

    name: Label
    arguments: Json


Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


def may_speak(role: str, turn: int) -> bool:
    """A known role; a system message only first."""
    return role in ROLES and (role != "system" or turn == 0)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One turn of a conversation."""

    role: Name
    content: Document = ""
    tool_calls: tuple[ToolUse, ...] = ()
    name: Label | None = None


class ToolAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How a call authenticates. The secret itself never enters an event: only its reference."""

    kind: Label
    """none, bearer, basic, api_key or header."""
    secret_ref: Label | None = None
    header: Label | None = None


class CompanyRegistered(Event, frozen=True, kw_only=True):
    """A company joined."""

    type: str = "company.registered"
    name: Text
    """As people write it; no key."""


class TextIngested(Event, frozen=True, kw_only=True):
    """A piece of plain text."""

    type: str = "text.ingested"
    entity: Note | None = None
    text: Document
    source: Note | None = None


class RecordIngested(Event, frozen=True, kw_only=True):
    """A structured record, as canonical JSON text."""

    type: str = "record.ingested"
    entity: Note | None = None
    kind: Note
    data: Json


class DocumentIngested(Event, frozen=True, kw_only=True):
    """A reference to a document that lies elsewhere."""

    type: str = "document.ingested"
    entity: Note | None = None
    uri: Address
    media_type: Note
    sha256: Label | None = None
    title: Text | None = None


OBSERVED, SYNTHETIC = "observed", "synthetic"


class ConversationIngested(Event, frozen=True, kw_only=True):
    """A finished conversation of an agent."""

    type: str = "conversation.ingested"
    version: int = 2
    entity: Note | None = None
    agent: Note
    messages: tuple[Message, ...]
    origin: Label = OBSERVED
    """observed: somebody had it; synthetic: it was made. Version 1 knew only the first."""


class AgentOutputIngested(Event, frozen=True, kw_only=True):
    """What an agent answered, and whether it was right: only successes are learned from."""

    type: str = "agent_output.ingested"
    version: int = 2
    entity: Note | None = None
    agent: Note
    prompt: Document
    output: Document
    tool_calls: tuple[ToolUse, ...] = ()
    success: bool
    score: float | None = None
    """0 to 1, by whoever judged it. Version 1 knew only right and wrong."""


class FeedbackGiven(Event, frozen=True, kw_only=True):
    """Somebody judged an answer: what is learned from it afterwards follows that."""

    type: str = "feedback.given"
    entity: Note | None = None
    about: Id
    """The event that holds the answer, or the story that it belongs to (its correlation), such as a job."""
    turn: int | None = None
    """Which message of a conversation; None: its last answer."""
    good: bool | None = None
    """A thumb up or down; None: only the correction says something."""
    correction: Message | None = None
    """What it should have said: text, calls or both."""
    by: Text = ""


class ToolRegistered(Event, frozen=True, kw_only=True):
    """A company offers a tool. Registering a name again replaces it."""

    type: str = "tool.registered"
    name: Name
    description: Text
    parameters: Json
    """JSON schema of the arguments, as canonical JSON text."""
    endpoint: Address
    method: Label = "POST"
    auth: ToolAuth


class ToolRevoked(Event, frozen=True, kw_only=True):
    """A company withdrew a tool."""

    type: str = "tool.revoked"
    name: Name
    reason: Text = ""


class FilePart(Event, frozen=True, kw_only=True):
    """Some lines of a file that is being uploaded, as they were sent. Without `file.uploaded` after it, of no file."""

    type: str = "file.part"
    entity: Id
    """The file."""
    part: int
    """Counted from 0."""
    text: Document


class FileUploaded(Event, frozen=True, kw_only=True):
    """A file stands in the log whole: its parts, and what is learned from them, all under the file as their entity."""

    type: str = "file.uploaded"
    entity: Id
    """The file."""
    name: Text
    """As whoever sent it calls it; no path, and no key."""
    purpose: Label
    method: Label
    """What its lines are for: supervised or dpo."""
    size: int
    """Bytes."""
    sha256: Label
    lines: int
    """Of JSON: the empty ones are not counted."""
    ranges: tuple[OffsetRange, ...]
    """Where its events stand, among others."""


class FileDeleted(Event, frozen=True, kw_only=True):
    """Nobody is to find the file any more, nor to train on it by its name."""

    type: str = "file.deleted"
    entity: Id
    """The file."""
    reason: Text = ""
