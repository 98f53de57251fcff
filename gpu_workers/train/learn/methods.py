"""How an adapter is put on a base model, by name."""

from collections.abc import Callable, Mapping

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from processors.training.settings import TrainSettings


def _lora(model: PreTrainedModel, settings: TrainSettings) -> PeftModel:
    torch.manual_seed(settings.seed)  # before the first random matrix, or no seed decides the adapter
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides: any number will do
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        bias="none",
    )
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


METHODS: Mapping[str, Callable[[PreTrainedModel, TrainSettings], PeftModel]] = {"lora": _lora}
