"""The life of one training run, from the wish to its one outcome."""

from __future__ import annotations

import msgspec

from schemas.envelope import Event


class OffsetRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Half open: start is read, stop is not."""

    topic: str
    partition: int
    start: int
    stop: int


class TrainingRequested(Event, frozen=True, kw_only=True):
    """Somebody wants an adapter. The run is named by this event's id."""

    type: str = "training.requested"
    version: int = 1
    role: str = "default"
    base_model: str
    method: str = "lora"
    ranges: tuple[OffsetRange, ...] = ()
    """Empty: everything of the company up to now."""
    settings: str = "{}"
    """Overrides of the training settings, as canonical JSON text."""


class TrainingAccepted(Event, frozen=True, kw_only=True):
    """A worker claimed the run."""

    type: str = "training.accepted"
    version: int = 1
    run: str
    worker: str
    ranges: tuple[OffsetRange, ...]
    manifest: str
    """sha256 of the dataset manifest."""
    examples: int


class TrainingRefused(Event, frozen=True, kw_only=True):
    """The run cannot be done, and why."""

    type: str = "training.refused"
    version: int = 1
    run: str
    reason: str
    detail: str = ""


class TrainingProgressed(Event, frozen=True, kw_only=True):
    """A live line."""

    type: str = "training.progressed"
    version: int = 1
    run: str
    phase: str
    step: int
    steps: int
    loss: float | None = None


class TrainingCompleted(Event, frozen=True, kw_only=True):
    """The run ended well."""

    type: str = "training.completed"
    version: int = 1
    run: str
    adapter: str
    sha256: str
    seconds: float


class TrainingFailed(Event, frozen=True, kw_only=True):
    """The run ended badly."""

    type: str = "training.failed"
    version: int = 1
    run: str
    reason: str
    detail: str = ""
