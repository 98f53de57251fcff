"""Training runs: one row each, from the wish to its one outcome."""

import msgspec

from projections.projection import Projection
from schemas import training
from schemas.envelope import Event

ENDED = frozenset({"refused", "completed", "failed"})


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The first outcome stands; what comes after it changes nothing."""

    company: str
    run: str
    status: str = "unknown"
    """unknown, requested, accepted, refused, completed or failed."""
    role: str = "default"
    base_model: str = ""
    method: str = ""
    settings: str = "{}"
    worker: str = ""
    ranges: tuple[training.OffsetRange, ...] = ()
    manifest: str = ""
    examples: int = 0
    phase: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    adapter: str | None = None
    sha256: str | None = None
    seconds: float | None = None
    reason: str | None = None
    detail: str = ""
    requested_at: int = 0
    updated_at: int = 0


def key(event: Event) -> str | None:
    if isinstance(event, training.TrainingRequested):
        return f"{event.company}/{event.id}"
    run = getattr(event, "run", None)
    return f"{event.company}/{run}" if run else None


def initial(row: str) -> Run:
    company, _, run = row.partition("/")
    return Run(company=company, run=run)


def fold(state: Run, event: Event) -> Run:
    if state.status in ENDED:
        return state
    match event:
        case training.TrainingRequested() if state.status == "unknown":
            return _requested(state, event)
        case training.TrainingAccepted():
            return _accepted(state, event)
        case training.TrainingProgressed():
            return _progressed(state, event)
        case training.TrainingRefused():
            return _ended(state, event, status="refused", reason=event.reason, detail=event.detail)
        case training.TrainingFailed():
            return _ended(state, event, status="failed", reason=event.reason, detail=event.detail)
        case training.TrainingCompleted():
            outcome = {"adapter": event.adapter, "sha256": event.sha256, "seconds": event.seconds}
            return _ended(state, event, status="completed", **outcome)
    return state


def _requested(state: Run, event: training.TrainingRequested) -> Run:
    return msgspec.structs.replace(
        state,
        status="requested",
        role=event.role,
        base_model=event.base_model,
        method=event.method,
        settings=event.settings,
        ranges=event.ranges,
        requested_at=event.time,
        updated_at=event.time,
    )


def _accepted(state: Run, event: training.TrainingAccepted) -> Run:
    """A second claim after a crash has the same ranges, and takes the run over."""
    if (state.status, state.worker) == ("accepted", event.worker):
        return state
    return msgspec.structs.replace(
        state,
        status="accepted",
        worker=event.worker,
        ranges=event.ranges,
        manifest=event.manifest,
        examples=event.examples,
        updated_at=event.time,
    )


def _progressed(state: Run, event: training.TrainingProgressed) -> Run:
    if (state.phase, state.step) == (event.phase, event.step):
        return state
    return msgspec.structs.replace(
        state, phase=event.phase, step=event.step, steps=event.steps, loss=event.loss, updated_at=event.time
    )


def _ended(state: Run, event: Event, **outcome: object) -> Run:
    return msgspec.structs.replace(state, updated_at=event.time, **outcome)


TRAINING_RUNS = Projection(
    name="training_runs", version=1, topics=("training-request",), state=Run, key=key, initial=initial, fold=fold
)
