"""What a projection is made of. `reduce(fold, events, initial(key))` is literally its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import msgspec

from schemas.envelope import Event

State = TypeVar("State", bound=msgspec.Struct)
Together = Literal["sum", "min", "max", "last_jobs"]
"""How a view puts one field of a row's parts together."""

OTHER_GROUPS = frozenset({"mlflow", "react", "serve", "sink", "tool", "train"})
"""Words with which groups of other workers go on behind `rillfold-`, as that of a fold with names of projections."""


@dataclass(frozen=True)
class Projection(Generic[State]):
    name: str
    version: int
    topics: tuple[str, ...]
    """Our names. More than one: all co-partitioned, by the same key rule."""
    state: type[State]
    key: Callable[[Event], str | None]
    """The row an event belongs to; None where it does not matter here. Always begins with the company."""
    initial: Callable[[str], State]
    fold: Callable[[State, Event], State]
    """Pure, and indifferent to an event that it has seen: returns the same state."""
    react: Callable[[State, Event, int], tuple[Event, ...]] | None = None
    """(state after the fold, event, now) -> events that follow. `now` is the record's own time: a replay agrees."""
    merge: Callable[[State, State], State] | None = None
    """For rows that a key rule spreads over partitions: how a query puts the parts together."""
    together: Mapping[str, Together] | None = field(default=None, compare=False)
    """How the view does, field by field, to the same end. A field that is not named is alike in all parts."""
