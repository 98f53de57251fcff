"""Automation jobs: one row a job, folded from what was asked, answered and returned. The saga's whole memory.

Three topics feed a row, and nothing orders one against another: the row is the same in whatever order they are folded.
"""

import msgspec

from projections.projection import Projection
from schemas.company import Message
from schemas.envelope import Event, derived_id
from schemas.inference import InferenceCompleted, InferenceFailed
from schemas.jobs import JobCompleted, JobFailed, JobRequested, JobStepped, JobWithdrawn
from schemas.tools import ToolReturned

# What of a tool's reply the model is shown, and the row keeps. The whole reply stays in the log.
REPLY_CHARS = 4_000
# Replies that wait for their turn. More of them are strays for certain.
EARLY = 16
# Far more than the saga takes. What is said beyond it is no part of a job: each event would cost more than the last.
MOST_STEPS = 64
ENDED = frozenset({"completed", "failed", "withdrawn"})
# What the row keeps of why it was taken back. A company says that itself, and the whole of it stays in the log.
WHY_CHARS = 1_000


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's history."""

    step: int
    kind: str
    detail: str
    time: int


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one effect: the model's answer or a tool's, or why there is none."""

    to: str
    """Id of the effect."""
    id: str
    turn: Message | None = None
    reason: str | None = None
    detail: str = ""
    adapter_version: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands."""

    company: str
    job: str
    status: str = "unknown"
    """unknown, running, completed, failed or withdrawn."""
    task: str = ""
    answer: str | None = None
    reason: str | None = None
    detail: str = ""
    step: int = 0
    """Inputs taken so far: the request, answers of the model, replies of tools."""
    role: str = "default"
    adapter_version: int | None = None
    use_adapter: bool = True
    prompt_tokens: int = 0
    completion_tokens: int = 0
    data: str = "{}"
    history: tuple[Step, ...] = ()
    request: str | None = None
    """Id of the request that began it."""
    replies: tuple[Reply, ...] = ()
    """Each to the effect of the one before it."""
    early: tuple[Reply, ...] = ()
    """Folded before what they reply to. Strays stay here."""
    tools: str | None = None
    first_step: str = "free"
    correlation: str = ""
    requested_at: int = 0
    updated_at: int = 0


def effect_id(event: str) -> str:
    """The id of whatever the saga sends out because of this input: known before it is decided what that is."""
    return derived_id(event, "effect")


def last_input(state: Job) -> str | None:
    return state.replies[-1].id if state.replies else state.request


def key(event: Event) -> str | None:
    job = getattr(event, "job", None)
    return f"{event.company}/{job}" if job else None


def initial(row: str) -> Job:
    company, _, job = row.partition("/")
    return Job(company=company, job=job)


def fold(state: Job, event: Event) -> Job:
    match event:
        case JobRequested():
            return _requested(state, event)
        case InferenceCompleted() | InferenceFailed() | ToolReturned():
            return _replied(state, reply_of(event), event.time)
        case JobStepped():
            return _stepped(state, event)
        case JobCompleted() if state.status not in ENDED:
            return _replace(state, event.time, status="completed", answer=event.answer)
        case JobFailed() if state.status not in ENDED:
            return _replace(state, event.time, status="failed", reason=event.reason, detail=event.detail)
        case JobWithdrawn() if state.status not in ENDED:
            return _replace(state, event.time, status="withdrawn", detail=event.reason[:WHY_CHARS])
    return state


def reply_of(event: InferenceCompleted | InferenceFailed | ToolReturned) -> Reply:
    match event:
        case InferenceCompleted():
            return Reply(
                to=event.request,
                id=event.id,
                turn=Message(role="assistant", content=event.text),
                adapter_version=event.adapter_version,
                prompt_tokens=event.prompt_tokens,
                completion_tokens=event.completion_tokens,
            )
        case InferenceFailed():
            return Reply(to=event.request, id=event.id, reason=event.reason, detail=event.detail)
    turn = Message(role="tool", name=event.tool, content=(event.body or event.reason)[:REPLY_CHARS])
    if event.ok:
        return Reply(to=event.call, id=event.id, turn=turn)
    return Reply(to=event.call, id=event.id, turn=turn, reason="tool_failed", detail=f"{event.tool}: {event.reason}")


def _requested(state: Job, event: JobRequested) -> Job:
    """What was taken back before it was asked for never begins: the bridge calls nothing for it either."""
    if state.request is not None or state.status not in ("unknown", "withdrawn"):
        return state
    begun = _replace(
        state,
        event.time,
        status="running" if state.status == "unknown" else state.status,
        request=event.id,
        step=1,
        task=event.task,
        data=event.data,
        role=event.role,
        use_adapter=event.use_adapter,
        tools=event.tools,
        first_step=event.first_step,
        correlation=event.correlation,
        requested_at=event.time,
    )
    return _taken(begun)


def _replied(state: Job, reply: Reply, time: int) -> Job:
    """The first reply to an effect counts. One whose turn has not come waits: topics have no order between them."""
    if len(state.early) >= EARLY or len(state.replies) >= MOST_STEPS:
        return state
    if any(_place(reply) == _place(known) for known in (*state.replies, *state.early)):
        return state
    early = tuple(sorted((*state.early, reply), key=_place))
    return _taken(_replace(state, time, early=early))


def _place(reply: Reply) -> tuple[str, bool]:
    """First is only defined within a topic: a tool's reply never takes the place of the model's."""
    return reply.to, reply.turn is not None and reply.turn.role == "tool"


def _taken(state: Job) -> Job:
    """Takes every reply whose turn has come."""
    while (last := last_input(state)) is not None:
        # The model answers a request and a tool's reply; a tool answers the model.
        awaited = effect_id(last), bool(state.replies) and not _place(state.replies[-1])[1]
        reply = next((each for each in state.early if _place(each) == awaited), None)
        if reply is None:
            break
        state = msgspec.structs.replace(
            state,
            early=tuple(each for each in state.early if each is not reply),
            replies=(*state.replies, reply),
            step=state.step + 1,
            adapter_version=state.adapter_version if reply.adapter_version is None else reply.adapter_version,
            prompt_tokens=state.prompt_tokens + reply.prompt_tokens,
            completion_tokens=state.completion_tokens + reply.completion_tokens,
        )
    return state


def _stepped(state: Job, event: JobStepped) -> Job:
    if len(state.history) >= MOST_STEPS or any(event.step == line.step for line in state.history):
        return state
    line = Step(step=event.step, kind=event.kind, detail=event.detail, time=event.time)
    history = tuple(sorted((*state.history, line), key=lambda each: each.step))
    return _replace(state, event.time, history=history)


def _replace(state: Job, time: int, **changes: object) -> Job:
    return msgspec.structs.replace(state, updated_at=max(state.updated_at, time), **changes)


JOBS: Projection[Job] = Projection(
    name="company_automation_jobs",
    version=3,
    topics=("automation-job", "inference-result", "tool-result"),
    state=Job,
    key=key,
    initial=initial,
    fold=fold,
)
