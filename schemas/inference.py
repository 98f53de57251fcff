"""Questions to a model and its answers."""

from __future__ import annotations

from schemas.company import Message
from schemas.envelope import Event


class InferenceRequested(Event, frozen=True, kw_only=True):
    """A question for the base model or one adapter. The request is named by this event's id."""

    type: str = "inference.requested"
    version: int = 1
    job: str | None = None
    adapter: str | None = None
    """None: the base model."""
    adapter_version: int | None = None
    """None: the newest."""
    messages: tuple[Message, ...]
    tools: str | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0


class InferenceCompleted(Event, frozen=True, kw_only=True):
    """The answer."""

    type: str = "inference.completed"
    version: int = 1
    request: str
    job: str | None = None
    text: str
    finish_reason: str
    adapter: str | None = None
    adapter_version: int | None = None
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class InferenceFailed(Event, frozen=True, kw_only=True):
    """No answer, and why. Never silently the base model's."""

    type: str = "inference.failed"
    version: int = 1
    request: str
    job: str | None = None
    reason: str
    detail: str = ""
