"""What a fine-tuning job asks for, as a training request; and what it asked for, as its run tells it."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from processors.gate import canonical
from processors.training.settings import TrainSettings
from projections.tuning.files import UploadedFile
from schemas.training import OffsetRange

PLAIN_ROLE = "tuned"
"""Of a job without a suffix."""
EPOCHS = 3
DEFAULTS = TrainSettings()
OURS = ("rule", "select", "objective", "epochs", "steps", "batch", "seed", "learning_rate", "beta")
"""What the request's other fields say."""
AUTO = "auto"


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """A job's numbers; None: as it is standard here."""

    method: str
    training_file: str
    validation_file: str | None = None
    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    beta: float | None = None
    seed: int | None = None


def settings_of(wish: Tuning, more: Mapping[str, Any]) -> str:
    """`more`: of the run's other settings, which stand in docs/training.md."""
    held_out = [wish.validation_file] if wish.validation_file else []
    select = {"entities": [wish.training_file, *held_out]} | ({"held_out": held_out} if held_out else {})
    batch = wish.batch_size or DEFAULTS.batch
    found: dict[str, Any] = {
        "rule": DEFAULTS.rule,
        "select": select,
        "epochs": wish.n_epochs or EPOCHS,
        "batch": batch,
        "micro_batch": min(batch, DEFAULTS.micro_batch),
        "learning_rate": DEFAULTS.learning_rate * (wish.learning_rate_multiplier or 1),
        "seed": wish.seed or 0,
        "objective": wish.method,
    }
    return canonical(dict(more) | found | ({"beta": wish.beta} if wish.beta else {}))


def tuning_of(settings: str) -> Tuning | None:
    """None: the run was asked for in another way, and is no job of this door."""
    try:
        found = msgspec.json.decode(settings, type=TrainSettings)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not found.select.entities:
        return None
    return Tuning(
        method=found.objective,
        training_file=found.select.entities[0],
        validation_file=found.select.held_out[0] if found.select.held_out else None,
        n_epochs=found.epochs,
        batch_size=found.batch,
        learning_rate_multiplier=round(found.learning_rate / DEFAULTS.learning_rate, 9),
        beta=found.beta,
        seed=found.seed,
    )


def ranges_of(files: Iterable[UploadedFile]) -> tuple[OffsetRange, ...]:
    """All that the files' events lie in: of each partition one stretch, out of which the selection picks theirs."""
    found: dict[tuple[str, int], OffsetRange] = {}
    for part in (part for file in files for part in file.ranges):
        there = found.get((part.topic, part.partition), part)
        found[part.topic, part.partition] = OffsetRange(
            topic=part.topic,
            partition=part.partition,
            start=min(there.start, part.start),
            stop=max(there.stop, part.stop),
        )
    return tuple(found.values())
