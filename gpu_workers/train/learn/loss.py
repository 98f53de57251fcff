"""What a model says of the answers in a text: the one forward pass that every objective is made of."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gpu_workers.train.learn.methods import Adapted
from gpu_workers.train.learn.packed import read
from gpu_workers.train.learn.samples import Padded


def answer_loss(adapted: Adapted, part: Padded) -> Tensor:
    """Summed over answer tokens."""
    return _token_losses(adapted, part, "sum")


def answer_chances(adapted: Adapted, part: Padded) -> Tensor:
    """The logarithm of each text's chance, of its answers' tokens alone."""
    losses = _token_losses(adapted, part, "none")
    rows = part.answers[:, 1:].to(losses.device).nonzero()[:, 0]
    # Not scattered by atomic adds: the same sums on every device, at every run.
    own = rows[None] == torch.arange(len(part.ids), device=losses.device)[:, None]
    return -(own * losses[None]).sum(1)


def _token_losses(adapted: Adapted, part: Padded, reduction: str) -> Tensor:
    """The vocabulary is large: the head runs only where an answer's token is to be foretold."""
    causal: Any = adapted.model.get_base_model()
    ids, answers = part.ids.to(causal.device), part.answers.to(causal.device)
    logits = causal.lm_head(read(adapted, part)[:, :-1][answers[:, 1:]])
    return cross_entropy(logits.float(), ids[:, 1:][answers[:, 1:]], reduction=reduction)


def tokens_in(part: Padded) -> int:
    """Of its texts, each of which ends with an answer; padding is none."""
    places = torch.arange(1, part.answers.shape[1] + 1)
    return int((part.answers * places).amax(1).sum())
