"""The life of one training run, from the wish to its one outcome."""

import msgspec

from schemas.envelope import Event
from schemas.words import Adapter, Id, Json, Label, Name, Text


class OffsetRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Half open: start is read, stop is not."""

    topic: Label
    partition: int
    start: int
    stop: int


class TrainingRequested(Event, frozen=True, kw_only=True):
    """Somebody wants an adapter. The run is named by this event's id."""

    type: str = "training.requested"
    role: Name = "default"
    base_model: Label
    method: Label = "lora"
    ranges: tuple[OffsetRange, ...] = ()
    """Empty: everything of the company up to now."""
    settings: Json = "{}"
    """Overrides of the training settings, as canonical JSON text."""


class TrainingAccepted(Event, frozen=True, kw_only=True):
    """A worker claimed the run."""

    type: str = "training.accepted"
    version: int = 2
    run: Id
    worker: Label
    generation: int = 0
    """Of the claim, counted by the group: what an earlier one still says does not count. Version 1 knew none."""
    ranges: tuple[OffsetRange, ...]
    manifest: Label
    """sha256 of the dataset manifest."""
    examples: int


class TrainingRefused(Event, frozen=True, kw_only=True):
    """The run cannot be done, and why."""

    type: str = "training.refused"
    version: int = 2
    run: Id
    reason: Label
    detail: Text = ""
    generation: int = 0
    """Of the claim by which it is said, or the worker's own where none was made. Version 1 knew neither it nor what
    follows."""
    read_seconds: float = 0.0
    """Its dataset was read for so long before it was refused; 0: it was not."""


class TrainingProgressed(Event, frozen=True, kw_only=True):
    """A live line."""

    type: str = "training.progressed"
    version: int = 2
    run: Id
    phase: Label
    step: int
    steps: int
    loss: float | None = None
    generation: int = 0
    """Of the claim. Version 1 knew neither it nor what follows."""
    held_out_loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class TrainingCompleted(Event, frozen=True, kw_only=True):
    """The run ended well."""

    type: str = "training.completed"
    version: int = 2
    run: Id
    adapter: Adapter
    sha256: Label
    seconds: float
    generation: int = 0
    """Of the claim: what an earlier one says does not count. Version 1 knew none."""


class TrainingFailed(Event, frozen=True, kw_only=True):
    """The run ended badly."""

    type: str = "training.failed"
    version: int = 2
    run: Id
    reason: Label
    detail: Text = ""
    generation: int = 0
    """Of the claim: what an earlier one says does not count. Version 1 knew none."""


class TrainingWithdrawn(Event, frozen=True, kw_only=True):
    """Somebody takes the wish back, at any moment: a run that did not begin is refused, one that did fails."""

    type: str = "training.withdrawn"
    run: Id
    reason: Text = ""
