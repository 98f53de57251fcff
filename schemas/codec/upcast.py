"""Old versions lifted one step at a time. Each step is pure: all fields of its version in, those of the next out."""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.envelope import Kind

Fields = dict[str, Any]


def agent_output_2(old: Fields) -> Fields:
    """A verdict becomes a score, so that old outputs can be ranked with new ones."""
    return old | {"score": 1.0 if old["success"] else 0.0}


def job_requested_2(old: Fields) -> Fields:
    """Jobs had no sessions."""
    return old | {"session": None}


UPCASTERS: Mapping[Kind, Callable[[Fields], Fields]] = {
    Kind("agent_output.ingested", 1): agent_output_2,
    Kind("job.requested", 1): job_requested_2,
}
"""From which version. The step leads to the next."""


def lift(kind: Kind, fields: Fields, newest: int) -> Fields:
    """The same facts as the newest version would have written them."""
    for version in range(kind.version, newest):
        fields = UPCASTERS[Kind(kind.type, version)](fields)
    return fields | {"type": kind.type, "version": newest} if kind.version < newest else fields
