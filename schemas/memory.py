"""What a company's agents are to remember."""

from schemas.envelope import Event
from schemas.words import Label, Text


class MemoryNoted(Event, frozen=True, kw_only=True):
    """Something to remember. The same name again replaces it."""

    type: str = "memory.noted"
    memory: Label
    """Its name within the company."""
    kind: Label = "fact"
    """fact, preference or automation."""
    text: Text
    source: Text = ""
    """Where it is from: a person, a job."""


class MemoryForgotten(Event, frozen=True, kw_only=True):
    """No longer to be used. What was noted stays in the log."""

    type: str = "memory.forgotten"
    memory: Label
    reason: Text = ""
