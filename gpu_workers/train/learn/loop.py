"""The training loop. What a step does is written once, here."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gpu_workers.train.learn.packed import attending, read
from gpu_workers.train.learn.samples import Batch, Padded
from processors.training.settings import TrainSettings


def train(model: PeftModel, batches: Iterable[Batch], settings: TrainSettings) -> Iterator[float]:
    """Yields the loss of each step; leaves the trained adapter in the model."""
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, lambda done: _rate(done, settings))
    model.train()
    with attending(model, settings):
        for batch in batches:
            yield step(model, batch, optimizer)
            schedule.step()
    model.eval()


def step(model: PeftModel, batch: Batch, optimizer: Optimizer) -> float:
    """One part after the other goes forward and back; every answer token of the batch weighs the same."""
    tokens = sum(int(part.answers.sum()) for part in batch)
    total = 0.0
    for part in batch:
        loss = answer_loss(model, part) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def answer_loss(model: PeftModel, part: Padded) -> Tensor:
    """Summed over answer tokens. The vocabulary is large: the head runs only where one of them is to be foretold."""
    causal: Any = model.get_base_model()
    ids, answers = part.ids.to(causal.device), part.answers.to(causal.device)
    logits = causal.lm_head(read(causal, part)[:, :-1][answers[:, 1:]])
    return cross_entropy(logits.float(), ids[:, 1:][answers[:, 1:]], reduction="sum")


def _rate(done: int, settings: TrainSettings) -> float:
    """Up in a line for the warm-up, then down in a line to nothing."""
    if done < settings.warmup:
        return (done + 1) / settings.warmup
    return max(0.0, (settings.steps - done) / max(1, settings.steps - settings.warmup))
