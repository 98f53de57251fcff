"""What an adapter is made by, under the names that users of such tools know."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from gpu_workers.bases.files import name_of
from processors.dataset.selection import Selection
from processors.training.settings import TrainSettings
from rillfold.settings import Settings, from_env
from schemas.errors import Stop

COMPANY = "auto-lora"
AGENT = "tools"
MADE = Selection(origins=("synthetic",), agents=(AGENT,))
"""What loops have made."""
_AS: dict[str, str] = {
    "rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "epochs": "num_epochs",
    "batch": "batch_size * gradient_accumulation_steps",
    "micro_batch": "batch_size",
    "evaluation_rows": "held_out",
}


def made_by(loop: str) -> Selection:
    """A loop learns what stands under its own name alone."""
    return msgspec.structs.replace(MADE, entities=(loop,))


class BadConfig(Stop):
    """A number that no adapter can be made by."""


class TrainingConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The defaults are those of examples/auto_lora.py."""

    model_name: str = ""
    """A name of RILLFOLD_BASE_MODELS, a folder, or a hub id in the local cache. Empty: RILLFOLD_BASE_MODEL."""
    llama_cpp_model_path: str = ""
    """The base as a GGUF file, for whoever runs it there. Looked at by the check alone."""
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    """Short runs learn faster without."""
    batch_size: int = 4
    learning_rate: float = 2e-3
    num_epochs: int = 1
    gradient_accumulation_steps: int = 2
    num_synthetic_examples: int = 240
    """Of the first iteration."""
    temperature: float = 0.7
    """Of the words of requests, in the first iteration."""
    top_p: float = 0.9
    """Of a model that words them."""
    held_out: int = 60
    """Requests whose right answer is a call, to measure on; as many more as the mix has others."""
    seed: int = 0
    threads: int = 0
    """0: RILLFOLD_TRAIN_THREADS, or as many as there are cores."""
    company: str = COMPANY
    """Whose events what is made is."""

    def train_settings(self, select: Selection = MADE) -> TrainSettings:
        """Raises BadConfig, with the field and its bounds."""
        told: dict[str, Any] = {
            "rank": self.lora_r,
            "alpha": self.lora_alpha,
            "dropout": self.lora_dropout,
            "learning_rate": self.learning_rate,
            "epochs": self.num_epochs,
            "batch": self.batch_size * self.gradient_accumulation_steps,
            "micro_batch": self.batch_size,
            "evaluation_rows": self.held_out,
            "seed": self.seed,
            "select": select,
        }
        self._must_be_sane()
        try:
            return msgspec.convert(told, TrainSettings)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("$.")[2].rstrip("`")
            raise BadConfig(
                f"TrainingConfig.{_AS.get(field, field)} is not usable: {error}. docs/auto-lora.md has the bounds."
            ) from error

    def base_name(self, settings: Settings) -> str:
        """As requests call it; a folder that is on no list by its last part."""
        name = settings.base_name(self.model_name or None)
        return name if name in settings.bases() else name_of(name)

    def base(self, settings: Settings) -> str:
        """Where the base model lies, by the operator's list."""
        name = settings.base_name(self.model_name or None)
        return settings.bases().get(name, name)

    def cores(self) -> int:
        return self.threads or from_env().train_threads or os.cpu_count() or 1

    def _must_be_sane(self) -> None:
        for name, least, most in (
            ("num_epochs", 1, 1000),
            ("num_synthetic_examples", 1, 100_000),
            ("held_out", 1, 1000),
            ("temperature", 0, 1),
            ("top_p", 0, 1),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise BadConfig(f"TrainingConfig.{name} is {value}: it has to be {least} to {most}.")
