"""How an adapter is trained. Part of its identity: the same settings on the same data give the same bytes."""

import json
from collections.abc import Container, Mapping
from typing import Annotated, Literal, get_args

import msgspec

from processors.dataset.selection import Selection

Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODULES: tuple[Module, ...] = get_args(Module)

METHOD_NAMES = ("lora", "rslora", "qlora", "adalora")
MOST_RANK = 64

RULE_VERSION = 3
MOST_SETTINGS = 64 << 10
"""Bytes of `spelled`: they stand in an adapter's identity, of which an event holds four times as much."""
Objective = Literal["supervised", "dpo", "kto"]
Activation = Literal["always", "generation-prompt"]
Tools = Literal["closed-book", "in-prompt"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]

# Wide enough for whoever means it; a number beyond is a slip, or somebody who wants the machine for himself.
Texts = Annotated[int, msgspec.Meta(gt=0, le=1024)]


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults reach the figures of docs/training.md on the packaged model."""

    rank: Annotated[int, msgspec.Meta(gt=0, le=MOST_RANK)] = 16
    alpha: Annotated[float, msgspec.Meta(gt=0, le=1024)] = 32.0
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 2e-3
    steps: Annotated[int, msgspec.Meta(gt=0, le=1_000_000)] = 24
    warmup: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 5
    batch: Texts = 8
    micro_batch: Texts = 4
    """So many texts of a batch are in memory at once."""
    max_tokens: Annotated[int, msgspec.Meta(gt=0, le=131_072)] = 1024
    """Longest text, prompts and answers; a longer one refuses the run."""
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 0
    evaluation_rows: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 60
    modules: Annotated[tuple[Module, ...], msgspec.Meta(min_length=1, max_length=len(MODULES))] = MODULES
    rule: Annotated[int, msgspec.Meta(ge=1, le=RULE_VERSION)] = RULE_VERSION
    """Of the dataset: an older one rebuilds an older adapter."""
    select: Selection = Selection()
    tools: Tools = "closed-book"
    """in-prompt: the tools that were on offer stand in the prompt, in training and in service."""
    objective: Objective = "supervised"
    beta: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.1
    """Of DPO and KTO: how far from the base an adapter may go."""
    activation: Activation = "always"
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    epochs: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """So often is everything learned from; 0: `steps` says how long."""
    patience: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """Measures of the held-out loss without a gain, after which a run ends; 0: it never ends early."""
    measure_every: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Steps between two measures of the held-out loss; 0: none."""
    target_rank: Annotated[int, msgspec.Meta(ge=0, le=MOST_RANK)] = 0
    """Of AdaLoRA, on average; 0: half of `rank`, with which it begins."""


OF_METHOD: Mapping[str, Mapping[str, float | int]] = {"adalora": {"alpha": 512.0, "steps": 40}}
"""Where nobody says otherwise. AdaLoRA's singular values begin at nothing, and a short run moves them by hundredths."""


def of_method(method: str, settings: TrainSettings, given: Container[str]) -> TrainSettings:
    """What was not given, as the method needs it."""
    wanted = {name: value for name, value in OF_METHOD.get(method, {}).items() if name not in given}
    return msgspec.structs.replace(settings, **wanted)


def spelled(facts: object) -> str:
    """As an adapter's identity tells of it."""
    return json.dumps(msgspec.to_builtins(facts), sort_keys=True, separators=(",", ":"))
