"""Which of a company's events a dataset is made of. Part of its manifest."""

from typing import Literal

import msgspec

from schemas.words import Note

Taught = Literal["conversation.ingested", "agent_output.ingested"]


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Empty: everything. Each field narrows what the others leave."""

    agents: tuple[Note, ...] = ()
    types: tuple[Taught, ...] = ()
    since: int | None = None
    """Microseconds, as the producer saw them; from here on."""
    until: int | None = None
    """Up to here, and not this moment itself."""
    outcomes: bool = True
    """Feedback and tools' replies decide what is learned from. False: every answer is, good or bad."""
    leave_out: tuple[Note, ...] = ()
    """Entities of which nothing is learned: as if the log had never held them."""
