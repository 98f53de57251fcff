"""The life of one automation job."""

from __future__ import annotations

from schemas.envelope import Event


class JobRequested(Event, frozen=True, kw_only=True):
    """A company wants work done."""

    type: str = "job.requested"
    version: int = 2
    job: str
    task: str
    data: str = "{}"
    use_adapter: bool = True
    role: str = "default"
    tools: str | None = None
    """What the company offered when it asked, as canonical JSON text (processors.gate.snapshot), so that a replay gates
    against the same schemas. None: only the bridge gates, against what is registered when the call is made."""
    session: str | None = None
    """What it belongs to: a conversation, a day's work, a campaign. Named by whoever asks."""


class JobStepped(Event, frozen=True, kw_only=True):
    """The job went one step on."""

    type: str = "job.stepped"
    version: int = 1
    job: str
    step: int
    kind: str
    """inference_requested, tool_proposed, tool_returned or answered."""
    detail: str = ""


class JobCompleted(Event, frozen=True, kw_only=True):
    """The job ended well."""

    type: str = "job.completed"
    version: int = 1
    job: str
    answer: str
    steps: int


class JobFailed(Event, frozen=True, kw_only=True):
    """The job ended badly."""

    type: str = "job.failed"
    version: int = 1
    job: str
    reason: str
    detail: str = ""
    steps: int = 0
