"""Calls of companies' tools: one row each, from the proposal to the reply."""

import msgspec

from projections.projection import Projection
from schemas.envelope import Event
from schemas.tools import ToolCallProposed, ToolReturned


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Proposal and reply come from two topics: whichever is read first, the row ends the same."""

    company: str
    call: str
    job: str = ""
    tool: str = ""
    status: str = "unknown"
    """unknown, proposed, succeeded or failed."""
    arguments: str | None = None
    http_status: int | None = None
    reason: str = ""
    proposed_at: int | None = None
    returned_at: int | None = None


def key(event: Event) -> str | None:
    return f"{event.company}/{event.call}" if isinstance(event, ToolCallProposed | ToolReturned) else None


def initial(row: str) -> Call:
    company, _, call = row.partition("/")
    return Call(company=company, call=call)


def fold(state: Call, event: Event) -> Call:
    match event:
        case ToolCallProposed() if state.proposed_at is None:
            return msgspec.structs.replace(
                state,
                job=event.job,
                tool=event.tool,
                arguments=event.arguments,
                proposed_at=event.time,
                status="proposed" if state.status == "unknown" else state.status,
            )
        case ToolReturned() if state.returned_at is None:
            return msgspec.structs.replace(
                state,
                job=event.job,
                tool=event.tool,
                status="succeeded" if event.ok else "failed",
                http_status=event.status,
                reason=event.reason,
                returned_at=event.time,
            )
    return state


TOOL_CALLS = Projection(
    name="tool_calls",
    version=1,
    topics=("tool-call", "tool-result"),
    state=Call,
    key=key,
    initial=initial,
    fold=fold,
)
