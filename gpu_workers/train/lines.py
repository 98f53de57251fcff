"""What the worker and the child that trains say to each other. No torch: the worker itself never loads a model."""

from pathlib import Path

import msgspec

from gpu_workers.bases.files import BaseIdentity
from processors.measure.measures import Measures
from processors.training.settings import TrainSettings
from schemas.adapters import Evaluation

MEASURED = "measured"
"""A folder beside `out`: figures, and every answer that was wrong."""

MADE_UP = 16
"""Cases of each made-up suite: fewer than whoever asks for a measure gets, for each run pays for them."""
MADE_WORDS = 200
"""Held-out requests that are answered in words, where all was made: of no others it is known that words are right."""

# So many live lines of a phase go into the log, however many steps it has.
LINES = 50


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """All that decides an adapter's bytes, and where to put them."""

    rows: Path
    rows_sha256: str
    out: Path
    cache: Path
    base_model: str
    """The packaged name or the folder, by the operator's list."""
    base_name: str | None = None
    """Its name on that list."""
    method: str
    settings: TrainSettings
    threads: int
    words: int = 0
    """Held-out requests that are answered in words, asked too, at most: their mistakes stand in the analysis."""
    served: Path | None = None
    """The adapter that answers for the role now; None: it is not at hand, or none does."""
    served_version: int | None = None
    """None: the base model is what there is."""
    checkpoints: Path | None = None
    """Where a run that is broken off leaves what the next one takes up. None: nothing is kept."""
    checkpoint_seconds: float = 30.0
    """From one checkpoint to the next, at least; 0: one after each step."""


class ProofSpec(msgspec.Struct, frozen=True, kw_only=True, tag="proof"):
    """A tiny run of the worker's own. All that it needs is made there."""

    folder: Path
    """With an empty folder `out` in it."""
    threads: int


Spec = RunSpec | ProofSpec


class SpecTaken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """The spec was read: if the child ends from here on, it is the run that ended."""


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """A live line."""

    phase: str
    step: int
    steps: int
    loss: float | None = None
    held_out_loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None

    def figures(self) -> dict[str, float | None]:
        return {
            "loss": self.loss,
            "held_out_loss": self.held_out_loss,
            "tokens_per_second": self.tokens_per_second,
            "seconds_left": self.seconds_left,
        }

    def worth_saying(self) -> bool:
        """The first, the last, and about fifty between them, and what was measured on the way; not that the child
        lives, which the watchman wants to know."""
        if not self.steps:
            return False
        if self.held_out_loss is not None or self.steps <= LINES or self.step in (0, 1, self.steps):
            return True
        return self.step * LINES // self.steps != (self.step - 1) * LINES // self.steps


class Trained(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """The run ended well: the adapter lies in the folder that the spec named."""

    base: BaseIdentity
    identity: str
    """Settings, machine and library versions, as canonical JSON text."""
    evaluation: Evaluation | None
    losses: tuple[float, ...]
    measures: Measures | None = None
    """Every case that the gate looks at."""


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The run ended with an error that has a name."""

    reason: str
    detail: str


Line = SpecTaken | Report | Trained | Broken


def to_bytes(said: Spec | Line) -> bytes:
    return msgspec.json.encode(said, enc_hook=str) + b"\n"


def spec_of(line: bytes) -> Spec:
    spec: Spec = msgspec.json.decode(line, type=Spec, dec_hook=lambda kind, value: kind(value))
    return spec
