"""How an adapter is trained. Part of its identity: the same settings on the same data give the same bytes."""

from __future__ import annotations

from typing import Annotated

import msgspec

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

METHOD_NAMES = ("lora",)

Positive = Annotated[int, msgspec.Meta(gt=0)]


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults reach the figures of docs/training.md on the packaged model."""

    rank: Annotated[int, msgspec.Meta(gt=0, le=64)] = 16
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 32.0
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 2e-3
    steps: Positive = 24
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 5
    batch: Positive = 8
    micro_batch: Positive = 4
    """So many texts of a batch are in memory at once."""
    max_tokens: Positive = 1024
    """Longest text, prompts and answers; a longer one refuses the run."""
    seed: int = 0
    evaluation_rows: Annotated[int, msgspec.Meta(ge=0)] = 60
    modules: tuple[str, ...] = MODULES
