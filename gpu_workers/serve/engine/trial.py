"""Finite in its numbers is not finite in use. Most adapters' bounds prove it; of the others a short prompt through the
model shows what they do to it."""

import threading

import torch
from torch import Tensor

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.refused import UnusableAdapter
from gpu_workers.serve.engine.attention import RowSpan
from gpu_workers.serve.engine.bounds import FiniteBounds
from gpu_workers.serve.engine.decoder import Decoder, Tokens
from gpu_workers.serve.engine.lanes import NOBODY, Lanes, Plan, plan

PROMPT = 16
"""Tokens, spread over the vocabulary."""


def probe(decoder: Decoder, lanes: Plan = NOBODY) -> Tensor:
    """The logits after a fixed prompt, in a cache of its own."""
    device, vocabulary = decoder.embedding.device, decoder.embedding.shape[0]
    cache, places = decoder.cache(2, PROMPT), torch.arange(PROMPT, device=device)
    cache.clear([1])
    tokens = Tokens(
        ids=places * vocabulary // PROMPT,
        positions=places,
        cells=PROMPT + places,
        spans=[RowSpan(0, 0, PROMPT, [1])],
        asks=places[-1:],
        plan=lanes,
    )
    return decoder.forward(tokens, cache).logits


def why_broken(decoder: Decoder) -> str | None:
    """Why the base model alone computes nothing any more; None: it does."""
    try:
        finite = bool(probe(decoder).isfinite().all())
    except Exception as error:  # whatever it is: the prompt is ours, so no row and no adapter is to blame
        return f"{type(error).__name__}: {error}"
    return None if finite else "its numbers are not finite"


class Trial:
    """Tries adapters, one at a time, beside the engine: the base model's weights are shared, the lanes are its own."""

    def __init__(self, decoder: Decoder) -> None:
        self._bounds = FiniteBounds(decoder)
        self._decoder = decoder.beside()
        self._lanes = Lanes(self._decoder.sites, self._decoder.embedding)
        self._turn = threading.Lock()

    def __call__(self, weights: LoraWeights) -> None:
        """Raises UnusableAdapter."""
        if self._bounds.prove(weights):
            return
        with self._turn:
            lane = self._lanes.seat({weights})[weights]
            device = str(self._decoder.embedding.device)
            finite = bool(probe(self._decoder, plan([lane], [PROMPT], device)).isfinite().all())
        if not finite:
            raise UnusableAdapter("with this adapter the model's numbers are not finite. Train it again, more gently.")
