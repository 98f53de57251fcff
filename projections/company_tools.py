"""The tools that a company offers: one row a tool, kept after it is withdrawn."""

import msgspec

from projections.projection import Projection
from schemas.company import ToolAuth, ToolRegistered, ToolRevoked
from schemas.envelope import Event


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as it was registered last."""

    company: str
    name: str
    active: bool = False
    description: str = ""
    parameters: str = "{}"
    """JSON schema of the arguments, as canonical JSON text."""
    endpoint: str = ""
    method: str = "POST"
    auth: ToolAuth = ToolAuth(kind="none")
    revision: int = 0
    """Registrations so far."""
    reason: str = ""
    """Why it was withdrawn."""
    updated_at: int = 0
    updated_by: str = ""


def key(event: Event) -> str | None:
    return f"{event.company}/{event.name}" if isinstance(event, ToolRegistered | ToolRevoked) else None


def initial(row: str) -> Tool:
    company, _, name = row.partition("/")
    return Tool(company=company, name=name)


def fold(state: Tool, event: Event) -> Tool:
    if event.id == state.updated_by:
        return state
    if isinstance(event, ToolRegistered):
        return _registered(state, event)
    assert isinstance(event, ToolRevoked)
    return msgspec.structs.replace(state, active=False, reason=event.reason, updated_at=event.time, updated_by=event.id)


def _registered(state: Tool, event: ToolRegistered) -> Tool:
    return Tool(
        company=state.company,
        name=state.name,
        active=True,
        description=event.description,
        parameters=event.parameters,
        endpoint=event.endpoint,
        method=event.method,
        auth=event.auth,
        revision=state.revision + 1,
        updated_at=event.time,
        updated_by=event.id,
    )


COMPANY_TOOLS = Projection(
    name="company_tools", version=1, topics=("company-data",), state=Tool, key=key, initial=initial, fold=fold
)
