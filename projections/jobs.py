"""Automation jobs: one row a job, folded from what was asked, answered and returned. The saga's whole memory."""

from __future__ import annotations

import msgspec

from projections.projection import Projection
from schemas.company import Message
from schemas.envelope import Event, derived_id
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.jobs import JobCompleted, JobFailed, JobRequested, JobStepped
from schemas.tools import ToolReturned

# What of a tool's reply the model is shown, and the row keeps. The whole reply stays in the log.
REPLY_CHARS = 4_000
ENDED = frozenset({"completed", "failed"})


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's history."""

    step: int
    kind: str
    detail: str
    time: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands. Four topics feed it in no common order, so nothing here waits for `job.stepped`."""

    company: str
    job: str
    status: str = "unknown"
    """unknown, running, completed or failed."""
    task: str = ""
    data: str = "{}"
    role: str = "default"
    use_adapter: bool = True
    tools: str | None = None
    turns: tuple[Message, ...] = ()
    """The model's answers as it wrote them, and the tools' replies."""
    step: int = 0
    """Inputs taken so far: the request, answers of the model, replies of tools."""
    awaiting: str | None = None
    """Id of the one effect whose outcome moves the job on. Everything else is a repeat or a stray."""
    last: str | None = None
    """Id of the event that moved the job here."""
    adapter_version: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    history: tuple[Step, ...] = ()
    answer: str | None = None
    reason: str | None = None
    detail: str = ""
    correlation: str = ""
    requested_at: int = 0
    updated_at: int = 0


def effect_id(event: Event) -> str:
    """The id of whatever the saga sends out because of this event: known before it is decided what that is."""
    return derived_id(event.id, "effect")


def key(event: Event) -> str | None:
    job = getattr(event, "job", None)
    return f"{event.company}/{job}" if job else None


def initial(row: str) -> Job:
    company, _, job = row.partition("/")
    return Job(company=company, job=job)


def fold(state: Job, event: Event) -> Job:
    match event:
        case JobRequested() if state.status == "unknown":
            return _requested(state, event)
        case InferenceCompleted() if event.request == state.awaiting:
            return _answered(state, event)
        case InferenceFailed() if event.request == state.awaiting:
            return _moved(state, event, reason=event.reason, detail=event.detail)
        case ToolReturned() if event.call == state.awaiting:
            reply = Message(role="tool", name=event.tool, content=(event.body or event.reason)[:REPLY_CHARS])
            return _moved(state, event, turns=(*state.turns, reply))
        case JobStepped() if event.step > (state.history[-1].step if state.history else 0):
            line = Step(step=event.step, kind=event.kind, detail=event.detail, time=event.time)
            return msgspec.structs.replace(state, history=(*state.history, line), updated_at=event.time)
        case JobCompleted() if state.status not in ENDED:
            return _ended(state, event, status="completed", answer=event.answer)
        case JobFailed() if state.status not in ENDED:
            return _ended(state, event, status="failed", reason=event.reason, detail=event.detail)
    return state


def _requested(state: Job, event: JobRequested) -> Job:
    return _moved(
        state,
        event,
        status="running",
        task=event.task,
        data=event.data,
        role=event.role,
        use_adapter=event.use_adapter,
        tools=event.tools,
        correlation=event.correlation,
        requested_at=event.time,
    )


def _answered(state: Job, event: InferenceCompleted) -> Job:
    return _moved(
        state,
        event,
        turns=(*state.turns, Message(role="assistant", content=event.text)),
        adapter_version=event.adapter_version,
        prompt_tokens=state.prompt_tokens + event.prompt_tokens,
        completion_tokens=state.completion_tokens + event.completion_tokens,
    )


def _moved(state: Job, event: Event, **changes: object) -> Job:
    taken = {"step": state.step + 1, "awaiting": effect_id(event), "last": event.id, "updated_at": event.time}
    return msgspec.structs.replace(state, **taken, **changes)


def _ended(state: Job, event: Event, **changes: object) -> Job:
    return msgspec.structs.replace(state, awaiting=None, updated_at=event.time, **changes)


JOBS: Projection[Job] = Projection(
    name="company_automation_jobs",
    version=1,
    topics=("automation-job", "inference-result", "tool-result"),
    state=Job,
    key=key,
    initial=initial,
    fold=fold,
)
