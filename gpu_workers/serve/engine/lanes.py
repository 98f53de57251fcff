"""Lanes: the adapters of the running batch, stacked module by module, so that one product serves all of them.

Rows come sorted: the base's first, then lane by lane. Then the rows of a lane are one segment, and a batched product
over [lanes, rows a lane, width] reads each adapter's weights once. No loop over adapters, no copy of weights per token.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_workers.adapters.weights import LoraWeights

Key = TypeVar("Key")
RANK_STEP = 8
# Padding segments to one length costs products with zeros; beyond this share the ragged kernel is cheaper.
PADDED_SHARE = 4
PADDED_ROWS = 64


@dataclass(frozen=True)
class Plan:
    """How the tokens of one step map to lanes. Made once a step, used by every module."""

    first: int
    """Tokens before this one are the base model's."""
    lanes: slice
    """The lanes in reach; empty where nobody in this step has an adapter."""
    longest: int
    gather: Tensor | None = None
    """Token of each cell of the padded [lanes, longest] grid; None where the tokens are the grid."""
    scatter: Tensor | None = None
    """Cell of each token."""
    ends: Tensor | None = None
    """Where each lane's segment ends, for the ragged kernel."""


NOBODY = Plan(first=0, lanes=slice(0, 0), longest=0)


def plan(lane_of: Sequence[int | None], counts: Sequence[int], device: str = "cpu") -> Plan:
    """`lane_of[i]` and `counts[i]` are row i's lane and its number of tokens; rows are sorted, the base's first."""
    first = sum(count for lane, count in zip(lane_of, counts, strict=True) if lane is None)
    taken = [lane for lane in lane_of if lane is not None]
    if not taken:
        return NOBODY
    low, lanes = taken[0], taken[-1] + 1 - taken[0]
    reach, sizes = slice(low, low + lanes), [0] * lanes
    for lane, count in zip(lane_of, counts, strict=True):
        if lane is not None:
            sizes[lane - low] += count
    longest, tokens = max(sizes), sum(sizes)
    if tokens == lanes * longest:
        return Plan(first, reach, longest)
    if lanes * longest > PADDED_SHARE * tokens + PADDED_ROWS:
        return Plan(first, reach, longest, ends=torch.tensor(list(accumulate(sizes)), dtype=torch.int32, device=device))
    starts = torch.tensor([0, *accumulate(sizes)][:-1])
    cell = torch.arange(longest)
    filled = cell < torch.tensor(sizes)[:, None]
    gather = torch.where(filled, starts[:, None] + cell, 0).flatten()
    return Plan(first, reach, longest, gather.to(device), filled.flatten().nonzero().flatten().to(device))


class Site:
    """The LoRA matrices of all modules that read one input: their A's are one product."""

    def __init__(self, modules: Sequence[str], shapes: Sequence[tuple[int, int]]) -> None:
        self.modules = tuple(modules)
        self.shapes = tuple(shapes)
        self.live: list[set[int]] = [set() for _ in modules]
        self.rank = 0
        self.a = torch.empty(0)
        self.b: list[Tensor] = []

    def allocate(self, lanes: int, rank: int, like: Tensor) -> None:
        self.rank = rank
        self.a = like.new_zeros(lanes, rank * len(self.modules), self.shapes[0][1])
        self.b = [like.new_zeros(lanes, rank, out) for out, _ in self.shapes]
        self.live = [set() for _ in self.modules]

    def fill(self, lane: int, weights: LoraWeights) -> None:
        """Clears first: what a former tenant left in a module that this adapter lacks would be added to its answers."""
        self.a[lane].zero_()
        for i, module in enumerate(self.modules):
            self.b[i][lane].zero_()
            self.live[i].discard(lane)
            if module not in weights.pairs:
                continue
            a, b = weights.pairs[module]
            self.a[lane, i * self.rank : i * self.rank + a.shape[0]] = a
            self.b[i][lane, : a.shape[0]] = b.T
            self.live[i].add(lane)

    def add(self, plan: Plan, x: Tensor, outs: Sequence[Tensor]) -> None:
        """outs[i] += B_i A_i x, each row by its own lane, in place."""
        if plan.longest == 0 or not any(self.live):
            return
        if plan.ends is not None:
            self._add_ragged(plan, plan.ends, x[plan.first :], outs)
            return
        x = x[plan.first :]
        grid = (x if plan.gather is None else x[plan.gather]).view(-1, plan.longest, x.shape[1])
        h = torch.bmm(grid, self.a[plan.lanes].transpose(1, 2))
        for i, out in enumerate(outs):
            if not self.live[i]:
                continue
            part, b = h[..., i * self.rank : (i + 1) * self.rank], self.b[i][plan.lanes]
            rows = out[plan.first :]
            if plan.scatter is None:
                rows.view(-1, plan.longest, rows.shape[1]).baddbmm_(part, b)
            else:
                rows += torch.bmm(part, b).flatten(0, 1)[plan.scatter]

    def _add_ragged(self, plan: Plan, ends: Tensor, x: Tensor, outs: Sequence[Tensor]) -> None:
        h = F.grouped_mm(x, self.a[plan.lanes].transpose(1, 2), offs=ends)
        for i, out in enumerate(outs):
            if self.live[i]:
                part = h[:, i * self.rank : (i + 1) * self.rank].contiguous()
                out[plan.first :] += F.grouped_mm(part, self.b[i][plan.lanes], offs=ends)


def assign(held: Mapping[Key, int], wanted: Iterable[Key]) -> dict[Key, int]:
    """Lanes for the wanted adapters: who has one keeps it, unless that leaves more than half of the lanes idle."""
    keys = sorted(set(wanted), key=lambda key: held.get(key, len(held) + 1))
    limit = 2 * len(keys)
    kept = {key: held[key] for key in keys if held.get(key, limit) < limit}
    free = (lane for lane in range(limit) if lane not in kept.values())
    return kept | {key: next(free) for key in keys if key not in kept}


class Lanes:
    """Which adapter lies in which lane of all sites. It keeps none in memory: a lane of one that is gone is free."""

    def __init__(self, sites: Sequence[Site], like: Tensor) -> None:
        self._sites = tuple(sites)
        self._like = like
        self._held: WeakKeyDictionary[LoraWeights, int] = WeakKeyDictionary()
        self._capacity = self._rank = 0

    def seat(self, wanted: Set[LoraWeights]) -> dict[LoraWeights, int]:
        """Puts the wanted adapters into lanes and says where; others stay until somebody needs their place."""
        if not wanted:
            return {}
        rank = -(-max(weights.rank for weights in wanted) // RANK_STEP) * RANK_STEP
        lanes = assign(dict(self._held), wanted)
        needed = max(lanes.values()) + 1
        if needed > self._capacity or rank > self._rank or 2 * rank <= self._rank:
            self._allocate(1 << (max(needed, self._capacity) - 1).bit_length(), rank)
            lanes = assign({}, wanted)
        for weights, lane in lanes.items():
            if self._held.get(weights) != lane:
                self._fill(weights, lane)
        return lanes

    def _allocate(self, capacity: int, rank: int) -> None:
        self._capacity, self._rank = capacity, rank
        self._held.clear()
        for site in self._sites:
            site.allocate(capacity, rank, self._like)

    def _fill(self, weights: LoraWeights, lane: int) -> None:
        for other in [other for other, place in self._held.items() if place == lane]:
            del self._held[other]
        for site in self._sites:
            site.fill(lane, weights)
        self._held[weights] = lane
