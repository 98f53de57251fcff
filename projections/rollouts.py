"""Rollouts: which version answers for an adapter, which share another one tries, and how it came to that."""

import msgspec

from projections.projection import Projection
from schemas.adapters import RolloutDecided
from schemas.envelope import Event

# So many decisions are listed, and a repeat is recognised among them.
LISTED = 32


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rollout's history."""

    event: str
    version: int
    percent: int
    reason: str
    time: int


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """As it was decided last."""

    company: str
    adapter: str
    """company/role"""
    stable: int | None = None
    """The version that answers whatever the candidate does not."""
    candidate: int | None = None
    percent: int = 0
    """The candidate's share."""
    decisions: tuple[Decision, ...] = ()
    updated_at: int = 0


def key(event: Event) -> str | None:
    """A decision about another company's adapter belongs nowhere."""
    if not isinstance(event, RolloutDecided) or not event.adapter.startswith(f"{event.company}/"):
        return None
    return event.adapter


def initial(row: str) -> Rollout:
    return Rollout(company=row.partition("/")[0], adapter=row)


def fold(state: Rollout, event: Event) -> Rollout:
    assert isinstance(event, RolloutDecided)
    if any(decision.event == event.id for decision in state.decisions):
        return state
    version, percent = event.adapter_version, min(max(event.percent, 0), 100)
    decision = Decision(event=event.id, version=version, percent=percent, reason=event.reason, time=event.time)
    decisions = (*state.decisions[1 - LISTED :], decision)
    decided = msgspec.structs.replace(state, decisions=decisions, updated_at=event.time)
    if percent == 100:
        return msgspec.structs.replace(decided, stable=version, candidate=None, percent=0)
    if percent:
        return msgspec.structs.replace(decided, candidate=version, percent=percent)
    if version == state.candidate:
        return msgspec.structs.replace(decided, candidate=None, percent=0)
    return msgspec.structs.replace(decided, stable=None if version == state.stable else state.stable)


ROLLOUTS = Projection(
    name="rollouts", version=1, topics=("adapter-ready",), state=Rollout, key=key, initial=initial, fold=fold
)
