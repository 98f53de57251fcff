"""Learning from answers as they were given."""

from collections.abc import Iterator, Sequence

import msgspec
from torch import Tensor

from gpu_workers.train.learn.loss import answer_loss, tokens_in
from gpu_workers.train.learn.methods import Adapted
from gpu_workers.train.learn.samples import Batch, Padded, Text, batches
from processors.training.settings import TrainSettings


class Supervised:
    """Every answer token of a batch weighs the same."""

    def __init__(self, learned: Sequence[Text], held_out: Sequence[Text], settings: TrainSettings, pad: int) -> None:
        self._learned, self._held_out, self._settings, self._pad = learned, held_out, settings, pad
        self.texts = len(learned)

    def batches(self, steps: int) -> Iterator[Batch]:
        return batches(self._learned, msgspec.structs.replace(self._settings, steps=steps), self._pad)

    def held_out(self) -> Batch:
        """All of it, always in the same parts."""
        if not self._held_out:
            return []
        once = msgspec.structs.replace(self._settings, steps=1, batch=len(self._held_out))
        return next(batches(self._held_out, once, self._pad))

    def weight(self, batch: Sequence[Padded]) -> int:
        return sum(int(part.answers.sum()) for part in batch)

    def begin(self, adapted: Adapted, batch: Sequence[Padded]) -> None: ...

    def tokens(self, part: Padded) -> int:
        return tokens_in(part)

    def loss(self, adapted: Adapted, part: Padded) -> Tensor:
        return answer_loss(adapted, part)
