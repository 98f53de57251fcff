"""The envelope every event carries, and the one base class of all events."""

from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

from schemas.words import Company, Id

# All derived ids hang below this one: the same cause gives the same id on every replay.
NAMESPACE = UUID("6f1c7c0a-52c2-5c0f-9d7e-6d5a1f0b7e11")


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A fact. `type` and `version` are wire names: they never change when a class or a module does."""

    id: Id
    type: str
    version: int = 1
    """The first, unless a class says which one."""
    company: Company
    time: int
    """Microseconds since the Unix epoch, as the producer saw it. Order is by offset, never by time."""
    causation: Id | None = None
    """Id of the event that led to this one."""
    correlation: Id
    """Id of the first event of the whole story."""


class Kind(NamedTuple):
    """What an event says it is. A wire name outlives classes and modules."""

    type: str
    version: int

    def __str__(self) -> str:
        return f"{self.type}.v{self.version}"


class Origin(msgspec.Struct, frozen=True):
    """Where in the log a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def derived_id(cause: object, n: int | str = 0) -> str:
    """The id of the n-th event derived from `cause` (an Origin, an event id): the same on every replay."""
    return str(uuid5(NAMESPACE, f"{cause}/{n}"))


def caused_by(cause: Event, n: int | str, now: int) -> dict[str, Any]:
    """Envelope fields of an event that `cause` led to: same company, same story, deterministic id."""
    return {
        "id": derived_id(cause.id, n),
        "company": cause.company,
        "time": now,
        "causation": cause.id,
        "correlation": cause.correlation,
    }
