"""What a company's agents are to remember."""

from __future__ import annotations

from schemas.envelope import Event


class MemoryNoted(Event, frozen=True, kw_only=True):
    """Something to remember. The same name again replaces it."""

    type: str = "memory.noted"
    version: int = 1
    memory: str
    """Its name within the company."""
    kind: str = "fact"
    """fact, preference or automation."""
    text: str
    source: str = ""
    """Where it is from: a person, a job."""


class MemoryForgotten(Event, frozen=True, kw_only=True):
    """No longer to be used. What was noted stays in the log."""

    type: str = "memory.forgotten"
    version: int = 1
    memory: str
    reason: str = ""
