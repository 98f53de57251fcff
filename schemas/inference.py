"""Questions to a model and its answers."""

from schemas.company import Message
from schemas.envelope import Event
from schemas.words import Adapter, Address, Document, Id, Json, Label, Text

ANY_CALL = '{"call":null}'


class InferenceRequested(Event, frozen=True, kw_only=True):
    """A question for the base model or one adapter. The request is named by this event's id."""

    type: str = "inference.requested"
    version: int = 3
    job: Id | None = None
    adapter: Adapter | None = None
    """None: the base model."""
    adapter_version: int | None = None
    """None: the newest."""
    messages: tuple[Message, ...]
    tools: Json | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    must: Json | None = None
    """The form that the answer must have, as canonical JSON text: one call of the question's tools, of any (`ANY_CALL`)
    or of a named one (`{"call":"refund"}`), or JSON of a schema (`{"schema":{...}}`). None: it is free. Version 1 knew
    none. Tools that an adapter was trained without are not shown to it: they say what may be called, and no more."""
    priority: int = 0
    """Among its company's requests that wait, from -100 to 100; a lower one goes first. Before version 3 all had 0."""
    deadline: int | None = None
    """As `time`, in microseconds: after it nobody wants the answer, and it fails as `too_late`. None: it waits."""


class InferenceCompleted(Event, frozen=True, kw_only=True):
    """The answer."""

    type: str = "inference.completed"
    request: Id
    job: Id | None = None
    text: Document
    finish_reason: Label
    adapter: Adapter | None = None
    adapter_version: int | None = None
    model: Address
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class InferenceFailed(Event, frozen=True, kw_only=True):
    """No answer, and why. Never silently the base model's."""

    type: str = "inference.failed"
    request: Id
    job: Id | None = None
    reason: Label
    detail: Text = ""
