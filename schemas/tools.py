"""Tool calls that a model proposed, and what came back."""

from schemas.envelope import Event
from schemas.words import Document, Id, Json, Name, Text


class ToolCallProposed(Event, frozen=True, kw_only=True):
    """A call that passed the gate. Its id is the idempotency key of the HTTP request."""

    type: str = "tool_call.proposed"
    call: Id
    job: Id
    tool: Name
    arguments: Json


class ToolReturned(Event, frozen=True, kw_only=True):
    """What the tool answered."""

    type: str = "tool.returned"
    call: Id
    job: Id
    tool: Name
    ok: bool
    status: int | None = None
    body: Document = ""
    reason: Text = ""
