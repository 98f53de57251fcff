"""The training loop. What a step does is written once, here, and so is all that a broken run needs to go on."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from math import ceil, inf
from time import monotonic
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from gpu_workers.train.learn.methods import Adapted
from gpu_workers.train.learn.packed import attending
from gpu_workers.train.learn.recomputed import frugal
from processors.training.settings import TrainSettings


class Objective(Protocol):
    """What is learned from, and what is to become small. A part is what is in memory at once."""

    texts: int

    def batches(self, steps: int) -> Iterator[Sequence[Any]]: ...

    def held_out(self) -> Sequence[Any]: ...

    def weight(self, batch: Sequence[Any]) -> int:
        """By what the losses of a batch's parts are divided, all together."""

    def begin(self, adapted: Adapted, batch: Sequence[Any]) -> None:
        """Before the first of a batch's parts: what none of them alone can tell."""

    def tokens(self, part: Any) -> int: ...

    def loss(self, adapted: Adapted, part: Any) -> Tensor:
        """Summed over the part."""


class Stepped(NamedTuple):
    """One step is done."""

    number: int
    loss: float
    held_out_loss: float | None
    tokens_per_second: float
    seconds_left: float


class Best(NamedTuple):
    """Weights that did best on what is held out, and how many measures ago that was."""

    loss: float
    waited: int
    weights: dict[str, Tensor]


NOTHING_YET = Best(inf, 0, {})


class Loop:
    """`run` yields after each step; what `state` gives between two of them is all that `restore` needs."""

    def __init__(self, adapted: Adapted, objective: Objective, settings: TrainSettings, steps: int) -> None:
        self._adapted, self._objective, self._settings, self._steps = adapted, objective, settings, steps
        self._weights = {name: each for name, each in adapted.model.named_parameters() if each.requires_grad}
        self._optimizer = AdamW(list(self._weights.values()), lr=settings.learning_rate, weight_decay=0.0)
        self._schedule = LambdaLR(self._optimizer, lambda done: _rate(done, settings.warmup, steps))
        causal: Any = adapted.model.get_base_model()
        self._cuda = causal.device.type == "cuda"
        self._scaler = GradScaler(causal.device.type, enabled=causal.dtype == torch.float16)
        if settings.gradient_checkpointing:
            causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.losses: list[float] = []
        self.held_out_losses: list[float] = []
        self._best = NOTHING_YET

    def run(self) -> Iterator[Stepped]:
        """Leaves the trained adapter in the model: the best that was measured, where patience watches."""
        causal: Any = self._adapted.model.get_base_model()
        again = self._settings.gradient_checkpointing  # keeps less still
        with attending(self._adapted.model, self._settings), nullcontext() if again else frugal(causal):
            yield from self._run()

    def _run(self) -> Iterator[Stepped]:
        model, began, first, read = self._adapted.model, monotonic(), len(self.losses), 0
        held_out = self._objective.held_out() if self._settings.measure_every else []
        model.train()
        for batch in islice(self._objective.batches(self._steps), first, None):
            if self._out_of_patience():
                break
            loss = self._step(batch)
            measured = self._measure(held_out) if held_out and self._is_due() else None
            read += sum(map(self._objective.tokens, batch))
            spent, done = monotonic() - began, len(self.losses)
            left = (self._steps - done) * spent / (done - first)
            yield Stepped(done, loss, measured, read / spent, left)
        if self._best.weights:
            self._take(self._best.weights)
        model.eval()
        self._at_rest()

    def _step(self, batch: Sequence[Any]) -> float:
        """One part after the other goes forward and back."""
        weight = self._objective.weight(batch)
        self._objective.begin(self._adapted, batch)
        total = 0.0
        for part in batch:
            loss = self._objective.loss(self._adapted, part) / weight
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if (penalty := self._adapted.ranks.penalty()) is not None:
            self._scaler.scale(penalty).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(list(self._weights.values()), 1.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self.losses.append(total)
        self._adapted.ranks.allocate(len(self.losses))
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def _is_due(self) -> bool:
        return len(self.losses) % self._settings.measure_every == 0 or len(self.losses) == self._steps

    @torch.no_grad()
    def _measure(self, held_out: Sequence[Any]) -> float:
        self._adapted.model.eval()
        self._objective.begin(self._adapted, held_out)
        summed = sum(float(self._objective.loss(self._adapted, part)) for part in held_out)
        self._adapted.model.train()
        loss = summed / self._objective.weight(held_out)
        self.held_out_losses.append(loss)
        if self._settings.patience and self._adapted.ranks.settled(len(self.losses)):
            self._remember(loss)
        return loss

    def _remember(self, loss: float) -> None:
        if loss < self._best.loss:
            self._best = Best(loss, 0, {name: each.detach().clone() for name, each in self._weights.items()})
        else:
            self._best = self._best._replace(waited=self._best.waited + 1)

    def _out_of_patience(self) -> bool:
        return bool(self._settings.patience) and self._best.waited >= self._settings.patience

    def _at_rest(self) -> None:
        causal: Any = self._adapted.model.get_base_model()
        if self._settings.gradient_checkpointing:
            causal.gradient_checkpointing_disable()
        if self._adapted.activation is not None:
            self._adapted.activation.in_texts(None)

    @torch.no_grad()
    def _take(self, weights: dict[str, Tensor]) -> None:
        for name, each in self._weights.items():
            each.copy_(weights[name])

    def state(self) -> dict[str, Any]:
        """Tensors, and plain values in plain containers: they can be read back without running anything."""
        return {
            "losses": self.losses,
            "held_out_losses": self.held_out_losses,
            "weights": {name: each.detach() for name, each in self._weights.items()},
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.last_epoch,
            "scaler": self._scaler.state_dict(),
            "ranks": self._adapted.ranks.state(),
            "best": tuple(self._best),
            "dice": torch.get_rng_state(),
            "dice of the card": torch.cuda.get_rng_state() if self._cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.losses, self.held_out_losses = list(state["losses"]), list(state["held_out_losses"])
        self._take(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.last_epoch = state["schedule"]
        self._scaler.load_state_dict(state["scaler"])
        self._adapted.ranks.restore(state["ranks"])
        self._best = Best(*state["best"])
        torch.set_rng_state(state["dice"])
        if self._cuda:
            torch.cuda.set_rng_state(state["dice of the card"])


def steps_of(settings: TrainSettings, texts: int) -> int:
    """Epochs are rounded up to whole batches."""
    return ceil(settings.epochs * texts / settings.batch) if settings.epochs else settings.steps


def _rate(done: int, warmup: int, steps: int) -> float:
    """Up in a line for the warm-up, then down in a line to nothing."""
    if done < warmup:
        return (done + 1) / warmup
    return max(0.0, (steps - done) / max(1, steps - warmup))
