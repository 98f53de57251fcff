"""How many ranks each matrix keeps: as many as it began with, or what AdaLoRA leaves it (arXiv 2303.10512)."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor

from processors.training.schedule import RankSchedule

ORTHOGONALITY = 0.5
"""What the penalty weighs: PEFT's own default."""
TALLIES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator remembers of each tensor."""


class Ranks(Protocol):
    def penalty(self) -> Tensor | None:
        """What is added to a step's loss, if anything."""

    def allocate(self, step: int) -> None:
        """After the optimizer's step, while the gradients are there. The first step is 1."""

    def settled(self, step: int) -> bool:
        """After this step the ranks stay what they are."""

    def state(self) -> dict[str, Any]:
        """All of it that is not in the weights."""

    def restore(self, state: dict[str, Any]) -> None: ...


class FixedRanks:
    def penalty(self) -> Tensor | None:
        return None

    def allocate(self, step: int) -> None: ...

    def settled(self, step: int) -> bool:
        return True

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


class ReallocatedRanks:
    """PEFT adds its penalty to a loss that we never ask it for, and leaves allocating to whoever has the loop."""

    def __init__(self, model: PeftModel, schedule: RankSchedule) -> None:
        self._model: Any = model.base_model
        self._config: Any = model.peft_config["default"]
        self._schedule = schedule
        self._alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                self._alike[tuple(parameter.shape)].append(parameter)

    def penalty(self) -> Tensor:
        """How far rows of A and columns of B are from being orthogonal, on average. Those of one shape go together."""
        off = [distance for alike in self._alike.values() for distance in _from_orthogonal(alike)]
        return ORTHOGONALITY * torch.cat([each.view(-1) for each in off]).mean()

    def allocate(self, step: int) -> None:
        self._model.update_and_allocate(step)

    def settled(self, step: int) -> bool:
        return step >= self._schedule.last_cut

    def state(self) -> dict[str, Any]:
        allocator = self._model.rankallocator
        return {"pattern": self._config.rank_pattern} | {name: getattr(allocator, name) for name in TALLIES}

    def restore(self, state: dict[str, Any]) -> None:
        """A checkpoint is read into the machine's memory: what belongs to a parameter goes to where that is."""
        self._config.rank_pattern = state["pattern"]
        parameters = dict(self._model.model.named_parameters())
        for name in TALLIES:
            tallies = {whose: each.to(parameters[whose].device) for whose, each in state[name].items()}
            setattr(self._model.rankallocator, name, tallies)


def _from_orthogonal(alike: list[Tensor]) -> Iterable[Tensor]:
    stacked = torch.stack(alike)
    wide = stacked if stacked.shape[1] <= stacked.shape[2] else stacked.mT
    apart = wide @ wide.mT - torch.eye(wide.shape[1], device=wide.device)
    yield torch.linalg.matrix_norm(apart)
