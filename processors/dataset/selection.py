"""Which of a company's events a dataset is made of. Part of its manifest."""

from typing import Annotated, Literal

import msgspec

from schemas.words import Note

Taught = Literal["conversation.ingested", "agent_output.ingested"]
ConversationOrigin = Literal["observed", "synthetic"]
Names = Annotated[tuple[Note, ...], msgspec.Meta(max_length=1000)]
Microseconds = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Empty: everything. Each field narrows what the others leave."""

    agents: Names = ()
    types: Annotated[tuple[Taught, ...], msgspec.Meta(max_length=100)] = ()
    origins: Annotated[tuple[ConversationOrigin, ...], msgspec.Meta(max_length=2)] = ()
    """synthetic: what was made; observed: all else."""
    since: Microseconds | None = None
    """Microseconds, as the producer saw them; from here on."""
    until: Microseconds | None = None
    """Up to here, and not this moment itself."""
    outcomes: bool = True
    """Feedback and tools' replies decide what is learned from. False: every answer is, good or bad."""
    leave_out: Names = ()
    """Entities of which nothing is learned: as if the log had never held them."""
    entities: Names = ()
    """Only these teach, such as an uploaded file. Empty: all do."""
    held_out: Names = ()
    """Of these, each question is measured on and never trained on, beside those that are held out anyway."""
    rules: Names = ()
    """Of applications, with their versions (orders.v1). The events that they take teach what these make of them."""
