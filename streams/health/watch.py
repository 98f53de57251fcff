"""Does a worker get on? What it was seen to do, as a value, and the verdict on it. The clock is an argument."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from streams.log.port import TopicPartition

Phase = Literal["joining", "restoring", "working"]
Counts = Mapping[str, tuple[str, float | Mapping[str, float]]]
"""Name -> (what it counts, how many so far: in all, or by projection)."""
NOTHING: Mapping[str, str] = {}
JOINING = 4
"""Times the patience: a group gives its partitions out when its slowest member has let go of them."""


class Sight(NamedTuple):
    """What a look at a worker shows. None: it holds the partition and cannot say where it stands."""

    phase: Phase
    positions: Mapping[TopicPartition, int | None]
    """The next offset to be taken in."""
    beats: int = 0
    """Signs of progress within one record, for work that rightly stands on one for long."""
    lost: Mapping[TopicPartition, str] = {}
    """Partitions that stand still until somebody decides what is to become of them, and why."""
    elsewhere: Collection[TopicPartition] = ()
    """Partitions that rows of ours wait for, and that another worker reads as yet."""


class PartitionSeen(NamedTuple):
    """Where a worker stands in one partition."""

    position: int
    end: int
    since: float
    """When it last moved, or fell behind the end; later by the time since then in which the worker was not at work."""
    void: int = 0
    """Up to here the log was read and holds no record: a transaction's ending takes offsets too."""

    @property
    def lag(self) -> int:
        """Never less than nothing: the position was asked for after the end."""
        return max(0, self.end - max(self.position, self.void))


@dataclass(frozen=True)
class Patience:
    """Seconds without progress until a worker is no longer ready, and how many more until it ends itself."""

    stalled: float = 25.0
    ends: float = 60.0


@dataclass(frozen=True)
class State:
    """All that was seen. `log` is when the event log last answered, `moved` when anything last moved, `at` the look."""

    log: float
    moved: float
    at: float
    phase: Phase = "joining"
    places: Mapping[TopicPartition, PartitionSeen] = field(default_factory=dict)
    log_error: str = "no answer yet"
    beats: int = 0
    lost: Mapping[TopicPartition, str] = field(default_factory=dict)
    elsewhere: Collection[TopicPartition] = ()

    def stands(self, tp: TopicPartition, since: float) -> bool:
        """Behind and still since then, and should not be."""
        place = self.places[tp]
        return bool(place.lag) and place.since <= since and tp not in self.lost and tp not in self.elsewhere


class Healthy(NamedTuple):
    """Works, or has nothing to do."""


class Starting(NamedTuple):
    """Not yet at work, and getting on."""

    what: str


class Halted(NamedTuple):
    """Works, but for partitions that rightly stand still: a restart would change nothing."""

    what: str


class Stalled(NamedTuple):
    """Stands, and should not."""

    what: str
    since: float
    ends: float
    """When the process has to end, if it still stands."""


Verdict = Healthy | Starting | Halted | Stalled


def begun(now: float) -> State:
    return State(log=now, moved=now, at=now)


def seen(state: State, sight: Sight, now: float) -> State:
    """After a look at the worker."""
    beats = sight.beats != state.beats
    # How long it waits for its partitions says nothing of how long it stands in one.
    waited = 0.0 if state.phase == "working" else now - state.at
    was = {tp: place._replace(since=now if beats else place.since + waited) for tp, place in state.places.items()}
    places = {tp: _at(was.get(tp), position, now) for tp, position in sight.positions.items()}
    stirs = any(tp not in was or place.position != was[tp].position for tp, place in places.items())
    moved = now if stirs or beats or sight.phase != state.phase else state.moved
    state = replace(state, phase=sight.phase, places=places, moved=moved, beats=sight.beats, at=now)
    return replace(state, lost=sight.lost, elsewhere=sight.elsewhere)


def _at(place: PartitionSeen | None, position: int | None, now: float) -> PartitionSeen:
    if place is None:
        return PartitionSeen(position or 0, 0, now)
    if position is None or position == place.position:
        return place
    return place._replace(position=position, since=now)


def answered(
    state: State, ends: Mapping[TopicPartition, int], now: float, deleted: Mapping[str, str] = NOTHING
) -> State:
    """After the event log has said where its partitions end, and which topics it does not have, in words."""
    lost = {tp: deleted[tp[0]] for tp in state.places if tp[0] in deleted}
    places = {tp: _until(place, ends.get(tp, place.end), now) for tp, place in state.places.items()}
    return replace(state, log=now, places=places, lost={**lost, **state.lost})


def _until(place: PartitionSeen, end: int, now: float) -> PartitionSeen:
    grown = place._replace(end=end)
    return grown._replace(since=now) if grown.lag and not place.lag else grown


def unanswered(state: State, error: str) -> State:
    return replace(state, log_error=error)


def suspects(state: State, bounds: Patience, now: float) -> list[TopicPartition]:
    """Behind and still for half the patience: worth reading whether there is a record at all."""
    if state.phase != "working":
        return []
    return [tp for tp in state.places if state.stands(tp, now - bounds.stalled / 2)]


def void(state: State, tp: TopicPartition, end: int) -> State:
    """There is no record between the position and `end`."""
    return replace(state, places={**state.places, tp: state.places[tp]._replace(void=end)})


def verdict(state: State, bounds: Patience, now: float) -> Verdict:
    """The log first: who cannot reach it cannot know of any lag."""
    if now - state.log >= bounds.stalled:
        return _stalled(f"the event log does not answer ({state.log_error})", state.log, bounds)
    if state.phase == "working":
        return _at_work(state, bounds, now)
    patience = replace(bounds, stalled=bounds.stalled * JOINING) if state.phase == "joining" else bounds
    what = "waiting for partitions" if state.phase == "joining" else f"restoring {restoring(state)}"
    if now - state.moved >= patience.stalled:
        return _stalled(what, state.moved, patience)
    return Starting(what)


def _at_work(state: State, bounds: Patience, now: float) -> Verdict:
    still = [(place.since, tp) for tp, place in state.places.items() if state.stands(tp, now - bounds.stalled)]
    if not still:
        whys = dict.fromkeys(why for _, why in sorted(state.lost.items()))
        return Halted(" ".join(whys)) if whys else Healthy()
    since, tp = min(still)
    place = state.places[tp]
    more = f", and {len(still) - 1} more partitions" if len(still) > 1 else ""
    return _stalled(f"{tp[0]}/{tp[1]} stands at {place.position} of {place.end}{more}", since, bounds)


def _stalled(what: str, since: float, bounds: Patience) -> Stalled:
    return Stalled(what, since, since + bounds.stalled + bounds.ends)


def restoring(state: State) -> str:
    behind = sorted((tp, place) for tp, place in state.places.items() if place.lag)
    return ", ".join(f"{tp[0]}/{tp[1]} at {place.position} of {place.end}" for tp, place in behind[:3]) or "tables"
