"""Texts that begin alike, in one row without padding: what they share goes through the model once.

Every token is a node of a tree, its parent the token before it. Each sees the tokens of its own text before it, at
their own places, and nothing of the others. What several texts share takes the sum of their gradients, which is what
reading it once for each of them would add up to, but for dropout: they share what it drops there, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from gpu_workers.train.learn.methods import Adapted
from gpu_workers.train.learn.samples import Padded
from processors.dataset.turns import THIRD
from processors.training.settings import TrainSettings

ATTENTION = "packed"


class Packed(NamedTuple):
    """Nodes in the order in which texts first say them."""

    ids: Tensor
    """Of each node."""
    positions: Tensor
    nodes: Tensor
    """Of each text, at each place; behind its end, the node of its last token."""
    first: Tensor
    """Where each node stands first in `nodes`, counted along the lines."""


def pack(part: Padded, acts: Tensor | None = None) -> Packed:
    """A text ends with its last answer. `acts`: where an adapter does; what it does not touch is not what it does."""
    tree: dict[tuple[int, int, bool], int] = {}
    ids: list[int] = []
    positions: list[int] = []
    first: list[int] = []
    width = part.ids.shape[1]
    lines = [[0] * width for _ in part.ids]
    ends = (part.answers * torch.arange(1, width + 1)).amax(dim=1).tolist()
    active = (torch.ones_like(part.answers) if acts is None else acts).tolist()
    for line, (text, end) in enumerate(zip(part.ids.tolist(), ends, strict=True)):
        node = -1
        for place, token in enumerate(text[:end]):
            node = tree.setdefault((node, token, active[line][place]), len(tree))
            if node == len(ids):
                ids.append(token)
                positions.append(place)
                first.append(line * width + place)
            lines[line][place] = node
        lines[line][end:] = [node] * (width - end)
    return Packed(torch.tensor(ids), torch.tensor(positions), torch.tensor(lines), torch.tensor(first))


def read(adapted: Adapted, part: Padded) -> Tensor:
    """What the model makes of every text at every place: packed while `attending`, else line by line.

    No mask: padding stands behind every answer, where a causal model cannot see it.
    """
    causal: Any = adapted.model.get_base_model()
    acts = None if adapted.activation is None else adapted.activation.places(part.answers)
    packed = pack(part, acts) if causal.config._attn_implementation == ATTENTION else None
    if adapted.activation is not None and acts is not None:
        places = acts if packed is None else acts.flatten()[packed.first][None]
        adapted.activation.at(places.to(causal.device))
    if packed is None:
        states: Tensor = causal.model(input_ids=part.ids.to(causal.device), use_cache=False).last_hidden_state
        return states
    return _packed_states(causal, Packed(*(each.to(causal.device) for each in packed)))


def _packed_states(causal: Any, packed: Packed) -> Tensor:
    states: Tensor = causal.model(
        input_ids=packed.ids[None], position_ids=packed.positions[None], use_cache=False, packed=packed
    ).last_hidden_state[0]
    return states[packed.nodes]


@contextmanager
def attending(model: Any, settings: TrainSettings) -> Iterator[None]:
    """While it lasts the model takes packed rows, and no others. Adapters of older rules are read line by line for
    ever."""
    if settings.rule < THIRD:
        yield
        return
    AttentionInterface.register(ATTENTION, _attend)
    config = model.get_base_model().config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    packed: Packed,
    scaling: float,
    **_more: Any,
) -> tuple[Tensor, None]:
    """Heads lie one above the other in each; every text attends by itself, then each node takes its own from the first
    text that says it."""
    q, k, v = (states[0].transpose(0, 1)[packed.nodes].transpose(1, 2) for states in (query, key, value))
    seen = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return seen.transpose(1, 2).flatten(0, 1)[packed.first][None], None
