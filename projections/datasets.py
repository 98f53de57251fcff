"""How much a company has given to learn from: one row for each kind of event."""

import msgspec

from projections.projection import Projection
from schemas.company import (
    AgentOutputIngested,
    ConversationIngested,
    DocumentIngested,
    RecordIngested,
    TextIngested,
)
from schemas.envelope import Event

INGESTED = (TextIngested, RecordIngested, DocumentIngested, ConversationIngested, AgentOutputIngested)
# A producer's repeat is recognised among so many events before it, per row. Further apart, it counts twice.
WINDOW = 16


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one kind of a company's data."""

    company: str
    kind: str
    events: int = 0
    successes: int = 0
    """Agent outputs that were right: what training may learn from."""
    first_at: int = 0
    last_at: int = 0
    recent: tuple[str, ...] = ()
    """Ids of the last events."""


def key(event: Event) -> str | None:
    return f"{event.company}/{event.type}" if isinstance(event, INGESTED) else None


def initial(row: str) -> Dataset:
    company, _, kind = row.partition("/")
    return Dataset(company=company, kind=kind)


def fold(state: Dataset, event: Event) -> Dataset:
    if event.id in state.recent:
        return state
    return Dataset(
        company=state.company,
        kind=state.kind,
        events=state.events + 1,
        successes=state.successes + (isinstance(event, AgentOutputIngested) and event.success),
        first_at=min(state.first_at, event.time) if state.events else event.time,
        last_at=max(state.last_at, event.time),
        recent=(*state.recent[1 - WINDOW :], event.id),
    )


def merge(a: Dataset, b: Dataset) -> Dataset:
    """A big company's entities spread over partitions; each partition counts its own."""
    return Dataset(
        company=a.company,
        kind=a.kind,
        events=a.events + b.events,
        successes=a.successes + b.successes,
        first_at=min(a.first_at, b.first_at),
        last_at=max(a.last_at, b.last_at),
    )


DATASETS = Projection(
    name="datasets",
    version=1,
    topics=("company-data",),
    state=Dataset,
    key=key,
    initial=initial,
    fold=fold,
    merge=merge,
    together={"events": "sum", "successes": "sum", "first_at": "min", "last_at": "max"},
)
