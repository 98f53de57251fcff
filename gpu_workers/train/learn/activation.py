"""An adapter that acts from its trigger on, and leaves what stands before as the base model has it."""

import torch
from peft import PeftModel
from torch import Tensor, nn

from gpu_workers.bases.chat import Chat
from schemas.company import Message


def generation_prompt(chat: Chat) -> tuple[int, ...]:
    """The tokens that a prompt ends with, after which the model speaks."""
    said = (Message(role="user", content=""),)
    return tuple(chat.prompt(said)[len(chat.history(said, None)) :])


class Activation:
    """Where it begins to act, in each text of the part that is computed now."""

    def __init__(self, trigger: tuple[int, ...]) -> None:
        self.trigger = trigger
        self._mask: Tensor | None = None

    def in_texts(self, answers: Tensor | None) -> None:
        """None: prompts, to be gone on from."""
        self.at(None if answers is None else self.places(answers))

    def places(self, answers: Tensor) -> Tensor:
        """Each text holds one answer, and right before it the trigger."""
        starts = answers.int().argmax(1, keepdim=True) - len(self.trigger)
        return torch.arange(answers.shape[1], device=answers.device) >= starts

    def at(self, places: Tensor | None) -> None:
        """Of the part that is computed next, token by token."""
        self._mask = places

    def of(self, x: Tensor) -> Tensor:
        """1 where it acts, 0 where it does not, for such an input."""
        if self._mask is not None:
            return self._mask.to(x)[..., None]
        length = x.shape[-2]
        ones = x.new_ones(length, 1)
        if length > 1:  # a prompt, whose right end is the trigger; what comes token by token is the answer
            ones[: length - len(self.trigger)] = 0
        return ones


class _From(nn.Module):
    """In place of an adapter's dropout: all that the adapter of a module sees passes there, by whatever method."""

    def __init__(self, dropout: nn.Module, activation: Activation) -> None:
        super().__init__()
        self.dropout, self._activation = dropout, activation

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.dropout(x)
        return seen * self._activation.of(x)


def activate(model: PeftModel, trigger: tuple[int, ...]) -> Activation:
    """None of these adapters has a bias: of nothing they make nothing."""
    activation = Activation(trigger)
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name, dropout in dropouts.items():
                dropouts[name] = _From(dropout, activation)
    return activation
