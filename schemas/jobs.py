"""The life of one automation job."""

from schemas.envelope import Event
from schemas.words import Document, Id, Json, Label, Name, Text

FIRST_STEPS = ("free", "call")


class JobRequested(Event, frozen=True, kw_only=True):
    """A company wants work done."""

    type: str = "job.requested"
    version: int = 3
    job: Id
    task: Document
    data: Json = "{}"
    use_adapter: bool = True
    role: Name = "default"
    tools: Json | None = None
    """What the company offered when it asked, as canonical JSON text (processors.gate.snapshot), so that a replay gates
    against the same schemas. None: only the bridge gates, against what is registered when the call is made."""
    session: Label | None = None
    """What it belongs to: a conversation, a day's work, a campaign. Named by whoever asks."""
    first_step: Label = "free"
    """One of `FIRST_STEPS`. call: the model's first answer is one of the tools' calls. Version 2 knew only free."""


class JobStepped(Event, frozen=True, kw_only=True):
    """The job went one step on."""

    type: str = "job.stepped"
    job: Id
    step: int
    kind: Label
    """inference_requested, tool_proposed, tool_returned or answered."""
    detail: Text = ""


class JobCompleted(Event, frozen=True, kw_only=True):
    """The job ended well."""

    type: str = "job.completed"
    job: Id
    answer: Document
    steps: int


class JobFailed(Event, frozen=True, kw_only=True):
    """The job ended badly."""

    type: str = "job.failed"
    job: Id
    reason: Label
    detail: Text = ""
    steps: int = 0


class JobWithdrawn(Event, frozen=True, kw_only=True):
    """Somebody takes the job back, at any moment: it ends here, unless it has ended before."""

    type: str = "job.withdrawn"
    job: Id
    reason: Text = ""
