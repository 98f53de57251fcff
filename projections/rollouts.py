"""Rollouts: which version answers for an adapter, which are withdrawn, which share another one tries, and how it came
to that. Who answers is decided here and nowhere else: workers that serve and that train fold these rows themselves."""

from collections.abc import Collection

import msgspec

from projections.projection import Projection
from schemas.adapters import AdapterReady, RolloutDecided
from schemas.envelope import Event

# So many decisions are listed, and a repeat is recognised among them.
LISTED = 32
# So many versions may follow each other back as they are withdrawn.
REMEMBERED = 100
# Of so many that are withdrawn each is named; a row that names all of them would be folded ever more slowly.
NAMED = 1_000


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
    newest: int = 0
    """The highest version that became ready. What is decided of a later one is listed, and changes nothing."""
    stable: int | None = None
    """The version that answers for the name, whatever the candidate does not: the one that was promoted last."""
    promoted: tuple[int, ...] = ()
    """Those that may, in the order in which they were promoted."""
    withdrawn: tuple[int, ...] = ()
    """They answer nobody any more, by their version neither."""
    floor: int | msgspec.UnsetType = msgspec.UNSET
    """Nor do those up to this one, but for what was promoted or is tried, where more were withdrawn than are named."""
    candidate: int | None = None
    percent: int = 0
    """The candidate's share."""
    decisions: tuple[Decision, ...] = ()
    updated_at: int = 0

    def is_withdrawn(self, version: int) -> bool:
        if version in self.withdrawn:
            return True
        if self.floor is msgspec.UNSET or version > self.floor:
            return False
        return version != self.candidate and version not in self.promoted


def answering(rollout: Rollout, known: Collection[int]) -> int | None:
    """The version that was promoted last of those that are at hand."""
    return next((version for version in reversed(rollout.promoted) if version in known), None)


def named_anew(before: Rollout, after: Rollout) -> set[int]:
    """Of which of these it may be another answer whether they are withdrawn; beside those that the floor passed."""
    changed = {each for each in (before.candidate, after.candidate) if each is not None}
    for one, other in ((before.withdrawn, after.withdrawn), (before.promoted, after.promoted)):
        if one is not other:
            changed |= {*one} ^ {*other}
    return changed


def key(event: Event) -> str | None:
    """A decision about another company's adapter belongs nowhere."""
    if not isinstance(event, AdapterReady | RolloutDecided) or not event.adapter.startswith(f"{event.company}/"):
        return None
    return event.adapter


def initial(row: str) -> Rollout:
    return Rollout(company=row.partition("/")[0], adapter=row)


def fold(state: Rollout, event: Event) -> Rollout:
    if isinstance(event, AdapterReady):
        return _ready(state, event)
    assert isinstance(event, RolloutDecided)
    if any(decision.event == event.id for decision in state.decisions):
        return state
    version, percent = event.adapter_version, min(max(event.percent, 0), 100)
    decision = Decision(event=event.id, version=version, percent=percent, reason=event.reason, time=event.time)
    decisions = (*state.decisions[1 - LISTED :], decision)
    decided = msgspec.structs.replace(state, decisions=decisions, updated_at=event.time)
    if not 1 <= version <= state.newest:
        return decided
    if percent == 100:
        return _promoted(decided, version)
    if percent == 0:
        return _withdrawn(decided, version)
    back = _without(decided.withdrawn, version)
    return msgspec.structs.replace(decided, candidate=version, percent=percent, withdrawn=back)


def _ready(state: Rollout, event: AdapterReady) -> Rollout:
    """The first event of a version stands."""
    if event.adapter_version <= state.newest:
        return state
    newer = msgspec.structs.replace(state, newest=event.adapter_version, updated_at=event.time)
    return _promoted(newer, event.adapter_version) if event.promoted else newer


def _promoted(state: Rollout, version: int) -> Rollout:
    promoted = (*_without(state.promoted, version)[1 - REMEMBERED :], version)
    back = _without(state.withdrawn, version)
    return msgspec.structs.replace(_tried(state, version), stable=version, promoted=promoted, withdrawn=back)


def _withdrawn(state: Rollout, version: int) -> Rollout:
    promoted = _without(state.promoted, version)
    gone = sorted({*state.withdrawn, version})
    tried, unnamed = _tried(state, version), gone[:-NAMED]
    if unnamed:
        tried = msgspec.structs.replace(tried, floor=max(unnamed[-1], tried.floor or 0))
    stable = promoted[-1] if promoted else None
    return msgspec.structs.replace(tried, stable=stable, promoted=promoted, withdrawn=tuple(gone[-NAMED:]))


def _tried(state: Rollout, version: int) -> Rollout:
    """What was tried has its answer."""
    return msgspec.structs.replace(state, candidate=None, percent=0) if version == state.candidate else state


def _without(versions: tuple[int, ...], version: int) -> tuple[int, ...]:
    return tuple(each for each in versions if each != version)


ROLLOUTS = Projection(
    name="rollouts", version=2, topics=("adapter-ready",), state=Rollout, key=key, initial=initial, fold=fold
)
