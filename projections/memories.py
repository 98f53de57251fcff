"""What a company's agents remember: one row a memory, kept after it is forgotten."""

import msgspec

from projections.projection import Projection
from schemas.envelope import Event
from schemas.memory import MemoryForgotten, MemoryNoted


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A memory as it was noted last."""

    company: str
    memory: str
    active: bool = False
    kind: str = "fact"
    text: str = ""
    source: str = ""
    revision: int = 0
    """How often it was noted."""
    reason: str = ""
    """Why it was forgotten."""
    noted_at: int = 0
    updated_at: int = 0
    updated_by: str = ""


def key(event: Event) -> str | None:
    return f"{event.company}/{event.memory}" if isinstance(event, MemoryNoted | MemoryForgotten) else None


def initial(row: str) -> Memory:
    company, _, memory = row.partition("/")
    return Memory(company=company, memory=memory)


def fold(state: Memory, event: Event) -> Memory:
    if event.id == state.updated_by:
        return state
    if isinstance(event, MemoryForgotten):
        return msgspec.structs.replace(
            state, active=False, reason=event.reason, updated_at=event.time, updated_by=event.id
        )
    assert isinstance(event, MemoryNoted)
    return Memory(
        company=state.company,
        memory=state.memory,
        active=True,
        kind=event.kind,
        text=event.text,
        source=event.source,
        revision=state.revision + 1,
        noted_at=state.noted_at or event.time,
        updated_at=event.time,
        updated_by=event.id,
    )


MEMORIES = Projection(
    name="memories", version=1, topics=("company-data",), state=Memory, key=key, initial=initial, fold=fold
)
