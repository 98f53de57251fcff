"""Training runs: one row each, from the wish to its one outcome."""

from hashlib import sha256

import msgspec

from projections.projection import Projection
from schemas import training
from schemas.envelope import Event

ENDED = frozenset({"refused", "completed", "failed"})
MOST_GENERATION = 1 << 53
"""No group counts so far, and there is room above it for the claims of others."""
MOST_READ_SECONDS = 1e6
"""That a refusal may say it cost."""
ASKED_DIGITS = 16


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The newest claim stands, and its first outcome: what an earlier claim still says changes nothing."""

    company: str
    run: str
    status: str = "unknown"
    """unknown, requested, accepted, refused, completed or failed."""
    role: str = "default"
    base_model: str = ""
    method: str = ""
    settings: str = "{}"
    asked: str = ""
    """A digest of what the first request under this id asks for: it alone counts."""
    passed_over: int = 0
    """Requests that came after it under the same id and ask for something else. They have no outcome of their own: it
    would be taken for this run's."""
    withdrawn: str | None = None
    """Why the wish was taken back, where it was: the outcome follows."""
    worker: str = ""
    generation: int = 0
    """Of the newest claim."""
    accepted_at: int = 0
    """The first claim."""
    worked: int = 0
    """Microseconds from a claim to the last that it said, of all claims: what nobody did in between is not counted. Of
    a run that was refused once its dataset was read, that reading."""
    ranges: tuple[training.OffsetRange, ...] = ()
    manifest: str = ""
    examples: int = 0
    phase: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    held_out_loss: float | None = None
    """The newest there was."""
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    adapter: str | None = None
    sha256: str | None = None
    seconds: float | None = None
    reason: str | None = None
    detail: str = ""
    requested_at: int = 0
    updated_at: int = 0


Outcome = training.TrainingRefused | training.TrainingFailed | training.TrainingCompleted


def overtaken(run: Run, generation: int) -> bool:
    """Whether a claim of this number is not the newest any more. 0: older releases gave their outcomes none, and those
    are believed."""
    return 0 < generation < run.generation


def key(event: Event) -> str | None:
    if isinstance(event, training.TrainingRequested):
        return f"{event.company}/{event.id}"
    run = getattr(event, "run", None)
    return f"{event.company}/{run}" if run else None


def initial(row: str) -> Run:
    company, _, run = row.partition("/")
    return Run(company=company, run=run)


def fold(state: Run, event: Event) -> Run:
    if isinstance(event, training.TrainingRequested):
        return _asked(state, event)
    if state.status in ENDED or (isinstance(event, Outcome) and overtaken(state, event.generation)):
        return state
    match event:
        case training.TrainingAccepted() if event.generation >= state.generation:
            return _accepted(state, event)
        case training.TrainingProgressed() if event.generation >= state.generation:
            return _progressed(state, event)
        case training.TrainingWithdrawn() if state.status != "unknown" and state.withdrawn is None:
            return msgspec.structs.replace(state, withdrawn=event.reason)
        case training.TrainingRefused():
            return _refused(state, event)
        case training.TrainingFailed():
            return _ended(state, event, status="failed", reason=event.reason, detail=event.detail)
        case training.TrainingCompleted():
            outcome = {"adapter": event.adapter, "sha256": event.sha256, "seconds": event.seconds}
            return _ended(state, event, status="completed", **outcome)
    return state


def _asked(state: Run, event: training.TrainingRequested) -> Run:
    """The same once more is the same run, before its end and after."""
    wish = (event.role, event.base_model, event.method, event.settings, event.ranges)
    asked = sha256(msgspec.json.encode(wish)).hexdigest()[:ASKED_DIGITS]
    if state.status == "unknown":
        return _requested(state, event, asked)
    if not state.asked:
        return msgspec.structs.replace(state, asked=asked)  # somebody spoke of the run before it was asked for
    return state if asked == state.asked else msgspec.structs.replace(state, passed_over=state.passed_over + 1)


def _requested(state: Run, event: training.TrainingRequested, asked: str) -> Run:
    return msgspec.structs.replace(
        state,
        status="requested",
        asked=asked,
        role=event.role,
        base_model=event.base_model,
        method=event.method,
        settings=event.settings,
        ranges=event.ranges,
        requested_at=event.time,
        updated_at=event.time,
    )


def _accepted(state: Run, event: training.TrainingAccepted) -> Run:
    """A second claim after a crash has the same ranges, and takes the run over: it says itself where that goes on."""
    if (state.status, state.worker, state.generation) == ("accepted", event.worker, event.generation):
        return state
    if event.generation > MOST_GENERATION:
        return state
    return msgspec.structs.replace(
        state,
        status="accepted",
        worker=event.worker,
        generation=event.generation,
        accepted_at=state.accepted_at or event.time,
        ranges=event.ranges,
        manifest=event.manifest,
        examples=event.examples,
        phase="",
        step=0,
        steps=0,
        updated_at=event.time,
    )


def _progressed(state: Run, event: training.TrainingProgressed) -> Run:
    if (state.phase, state.step) == (event.phase, event.step):
        return state
    return msgspec.structs.replace(
        state,
        phase=event.phase,
        step=event.step,
        steps=event.steps,
        loss=event.loss,
        held_out_loss=state.held_out_loss if event.held_out_loss is None else event.held_out_loss,
        tokens_per_second=event.tokens_per_second,
        seconds_left=event.seconds_left,
        worked=_worked(state, event),
        updated_at=event.time,
    )


def _refused(state: Run, event: training.TrainingRefused) -> Run:
    """Before anybody claimed it, it may have cost the reading of its dataset."""
    told = _ended(state, event, status="refused", reason=event.reason, detail=event.detail)
    if state.status == "accepted":
        return told
    read = min(max(0.0, event.read_seconds), MOST_READ_SECONDS)  # whatever it says
    return msgspec.structs.replace(told, worked=state.worked + int(read * 1e6))


def _ended(state: Run, event: Event, **outcome: object) -> Run:
    return msgspec.structs.replace(state, worked=_worked(state, event), updated_at=event.time, **outcome)


def _worked(state: Run, event: Event) -> int:
    """Clocks differ, and are set back: time is never taken away."""
    return state.worked + max(0, event.time - state.updated_at) if state.status == "accepted" else state.worked


def merge(a: Run, b: Run) -> Run:
    """A request may have been put where its key does not belong, and has a row there that nothing more happens to: what
    workers say stands at home."""
    return b if a.status in ("unknown", "requested") else a


TRAINING_RUNS = Projection(
    name="training_runs",
    version=3,
    topics=("training-request",),
    state=Run,
    key=key,
    initial=initial,
    fold=fold,
    merge=merge,
)
