"""Old versions lifted one step at a time. Each step is pure: all fields of its version in, those of the next out."""

from collections.abc import Callable
from typing import Any

from schemas.envelope import Kind

Fields = dict[str, Any]


def agent_output_2(old: Fields) -> Fields:
    """A verdict becomes a score, so that old outputs can be ranked with new ones."""
    return old | {"score": 1.0 if old["success"] else 0.0}


def conversation_2(old: Fields) -> Fields:
    """Nobody made conversations."""
    return old | {"origin": "observed"}


def job_requested_2(old: Fields) -> Fields:
    """Jobs had no sessions."""
    return old | {"session": None}


def job_requested_3(old: Fields) -> Fields:
    """Jobs began as the model wished."""
    return old | {"first_step": "free"}


def inference_requested_2(old: Fields) -> Fields:
    """No answer was held to a form."""
    return old | {"must": None}


def inference_requested_3(old: Fields) -> Fields:
    """Who asked waited in the order of coming, for as long as it took."""
    return old | {"priority": 0, "deadline": None}


def training_accepted_2(old: Fields) -> Fields:
    """Claims were not counted."""
    return old | {"generation": 0}


def training_progressed_2(old: Fields) -> Fields:
    """A line told of the loss alone."""
    return old | {"generation": 0, "held_out_loss": None, "tokens_per_second": None, "seconds_left": None}


def training_refused_2(old: Fields) -> Fields:
    """What had been read counted for nobody."""
    return old | {"generation": 0, "read_seconds": 0.0}


def training_ended_2(old: Fields) -> Fields:
    """Outcomes were believed, whoever had the run by then."""
    return old | {"generation": 0}


def adapter_ready_2(old: Fields) -> Fields:
    """There was no gate: whatever was ready was served."""
    return old | {"promoted": True}


Upcaster = Callable[[Fields], Fields]
UPCASTERS: dict[Kind, Upcaster] = {
    Kind("agent_output.ingested", 1): agent_output_2,
    Kind("conversation.ingested", 1): conversation_2,
    Kind("job.requested", 1): job_requested_2,
    Kind("job.requested", 2): job_requested_3,
    Kind("inference.requested", 1): inference_requested_2,
    Kind("inference.requested", 2): inference_requested_3,
    Kind("training.accepted", 1): training_accepted_2,
    Kind("training.progressed", 1): training_progressed_2,
    Kind("training.refused", 1): training_refused_2,
    Kind("training.completed", 1): training_ended_2,
    Kind("training.failed", 1): training_ended_2,
    Kind("adapter.ready", 1): adapter_ready_2,
}
"""From which version. The step leads to the next. Applications add theirs: `schemas.codec.additions`."""


def lift(kind: Kind, fields: Fields, newest: int) -> Fields:
    """The same facts as the newest version would have written them."""
    for version in range(kind.version, newest):
        fields = UPCASTERS[Kind(kind.type, version)](fields)
    return fields | {"type": kind.type, "version": newest} if kind.version < newest else fields
