"""How an adapter is put on a base model, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from gpu_workers.errors import BadSchedule
from gpu_workers.train.learn.activation import Activation, activate
from gpu_workers.train.learn.ranks import FixedRanks, Ranks, ReallocatedRanks
from processors.training import schedule
from processors.training.settings import TrainSettings


@dataclass(frozen=True)
class Adapted:
    """A base model with an adapter on it, ready to learn."""

    model: PeftModel
    ranks: Ranks
    activation: Activation | None = None


@dataclass(frozen=True)
class Method:
    """`put` seeds what is random about a beginning, and leaves nothing but the adapter to be trained."""

    put: Callable[[PreTrainedModel, TrainSettings, int], tuple[PeftModel, Ranks]]
    in_four_bits: bool = False
    """Its base model is one of packed weights."""

    def __call__(
        self, model: PreTrainedModel, settings: TrainSettings, steps: int, trigger: tuple[int, ...] = ()
    ) -> Adapted:
        """`trigger`: the tokens from which on it acts; none: everywhere."""
        torch.manual_seed(settings.seed)  # before the first random matrix, or no seed decides the adapter
        adapted, ranks = self.put(model, settings, steps)
        return Adapted(adapted, ranks, activate(adapted, trigger) if trigger else None)


def _lora(
    model: PreTrainedModel, settings: TrainSettings, _steps: int, *, stabilised: bool = False
) -> tuple[PeftModel, Ranks]:
    config = LoraConfig(r=settings.rank, use_rslora=stabilised, **_common(settings))
    return _put(model, config), FixedRanks()


def _adalora(model: PreTrainedModel, settings: TrainSettings, steps: int) -> tuple[PeftModel, Ranks]:
    plan = schedule.rank_schedule(settings, steps)
    if isinstance(plan, schedule.NoSchedule):
        raise BadSchedule(plan.detail)
    config = AdaLoraConfig(
        init_r=plan.first_rank,
        target_r=plan.target_rank,
        total_step=plan.steps,
        tinit=plan.warm,
        tfinal=plan.settle,
        deltaT=plan.every,
        **_common(settings),
    )
    adapted = _put(model, config)
    return adapted, ReallocatedRanks(adapted, plan)


def _common(settings: TrainSettings) -> dict[str, Any]:
    return {
        "task_type": TaskType.CAUSAL_LM,
        "lora_alpha": settings.alpha,  # peft divides: any number will do
        # What is held against the same model without its adapter is no noise's to change.
        "lora_dropout": settings.dropout if settings.objective == "supervised" else 0.0,
        "target_modules": list(settings.modules),
        "bias": "none",
    }


def _put(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


METHODS: Mapping[str, Method] = {
    "lora": Method(_lora),
    "rslora": Method(partial(_lora, stabilised=True)),
    "qlora": Method(_lora, in_four_bits=True),
    "adalora": Method(_adalora),
}
