"""Lanes: the adapters of the running batch, stacked module by module, so that one product serves all of a bucket.

Adapters of like rank share a bucket: nobody is padded to another's rank, or moved for it. Rows come sorted by `order`:
the base's first, then bucket by bucket, in each who has few tokens before who has many, lane by lane. Then the rows of
a lane are one segment, and a batched product over [lanes, rows a lane, width] reads each adapter's weights once. No
loop over adapters, no copy of weights per token.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_workers.adapters.weights import LoraWeights
from gpu_workers.serve.engine.moved import moved

Key = TypeVar("Key")
LEAST_RANK = 8
# Padding segments to one length costs products with zeros; beyond this share the ragged kernel is cheaper.
PADDED_SHARE = 4
PADDED_ROWS = 64
FEW = 4
"""Rows with more tokens are a part of their own: a chunk of a prompt pads nobody's answer to its length."""
IDLE_STEPS = 256
"""A bucket of which most was idle for so long gives its memory back."""


class Place(NamedTuple):
    """Where an adapter lies: in a lane of the bucket of its rank."""

    rank: int
    lane: int


BASE = Place(0, 0)
"""Sorts before every adapter's: where a row without one stands."""


@dataclass(frozen=True)
class LanePart:
    """The tokens of one step whose adapters share a bucket."""

    rank: int
    tokens: slice
    lanes: slice
    """Those in reach, of the bucket's."""
    longest: int
    gather: Tensor | None = None
    """Token of each cell of the padded [lanes, longest] grid; None where the tokens are the grid."""
    scatter: Tensor | None = None
    """Cell of each token."""
    ends: Tensor | None = None
    """Where each lane's segment ends, for the ragged kernel."""


Plan = Sequence[LanePart]
"""How the tokens of one step map to lanes, bucket by bucket. Made once a step, used by every module."""
NOBODY: Plan = ()


def order(place: Place | None, count: int) -> tuple[int, bool, int]:
    """By which the rows of a step are sorted."""
    rank, lane = place or BASE
    return rank, bool(rank) and count > FEW, lane


def plan(places: Sequence[Place | None], counts: Sequence[int], device: str | torch.device = "cpu") -> Plan:
    """`places[i]` and `counts[i]` are row i's place and its number of tokens; rows are sorted by `order`."""
    layouts, start = list[_Layout](), 0
    rows = zip(places, counts, strict=True)
    for (rank, many), alike in groupby(rows, key=lambda row: order(*row)[:2]):
        sizes: dict[int, int] = {}
        for place, count in alike:
            lane = place.lane if place else 0
            sizes[lane] = sizes.get(lane, 0) + count
        for part in _runs(sizes) if many else [sizes]:
            if rank:
                layouts.append(_Layout(rank, start, part))
            start += sum(part.values())
    indices = [layout.indices() for layout in layouts]
    there = iter(moved([each for group in indices for each in group], device))
    return tuple(layout.part([next(there) for _ in group]) for layout, group in zip(layouts, indices, strict=True))


def _runs(sizes: Mapping[int, int]) -> list[dict[int, int]]:
    """Lanes without a gap between them: one in the middle of others would be padded to their length."""
    runs: list[dict[int, int]] = []
    for lane, size in sizes.items():
        if not runs or lane - 1 not in runs[-1]:
            runs.append({})
        runs[-1][lane] = size
    return runs


class _Layout:
    """How one bucket's tokens are laid out: as they are, on a padded grid, or ragged."""

    def __init__(self, rank: int, start: int, sizes: Mapping[int, int]) -> None:
        self._rank, self._start = rank, start
        self._first, last = min(sizes), max(sizes)
        self._sizes = [sizes.get(lane, 0) for lane in range(self._first, last + 1)]
        self._longest, self._tokens = max(self._sizes), sum(self._sizes)
        cells = len(self._sizes) * self._longest
        self._even = cells == self._tokens
        self._ragged = cells > PADDED_SHARE * self._tokens + PADDED_ROWS

    def indices(self) -> list[Tensor]:
        """What a device must know of it: nothing, or gather and scatter, or ends."""
        if self._even:
            return []
        if self._ragged:
            return [torch.tensor(list(accumulate(self._sizes)))]
        starts = torch.tensor([0, *accumulate(self._sizes)][:-1])
        cell = torch.arange(self._longest)
        filled = cell < torch.tensor(self._sizes)[:, None]
        gather = torch.where(filled, starts[:, None] + cell, 0).flatten()
        return [gather, filled.flatten().nonzero().flatten()]

    def part(self, indices: Sequence[Tensor]) -> LanePart:
        gather, scatter = indices if len(indices) == 2 else (None, None)
        return LanePart(
            self._rank,
            slice(self._start, self._start + self._tokens),
            slice(self._first, self._first + len(self._sizes)),
            self._longest,
            gather,
            scatter,
            ends=indices[0].to(torch.int32) if self._ragged else None,
        )


class LaneStack:
    """One bucket at one site: the matrices of each lane, padded to the bucket's rank, each as its product reads it."""

    def __init__(self, lanes: int, rank: int, shapes: Sequence[tuple[int, int]], like: Tensor) -> None:
        self.rank = rank
        self.a = like.new_zeros(lanes, shapes[0][1], rank * len(shapes))
        self.b = [like.new_zeros(lanes, rank, out) for out, _ in shapes]
        self.live: list[set[int]] = [set() for _ in shapes]

    def fill(self, lane: int, pairs: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        """Clears first: what a former tenant left in a module that this adapter lacks would be added to its answers."""
        self.a[lane].zero_()
        for i, pair in enumerate(pairs):
            self.b[i][lane].zero_()
            self.live[i].discard(lane)
            if pair is None:
                continue
            a, b = pair
            self.a[lane, :, i * self.rank : i * self.rank + a.shape[0]] = a.T
            self.b[i][lane, : a.shape[0]] = b.T
            self.live[i].add(lane)

    def add(self, part: LanePart, x: Tensor, outs: Sequence[Tensor]) -> None:
        """outs[i] += B_i A_i x of the part's tokens, each by its own lane, in place."""
        if not any(self.live):
            return
        x = x[part.tokens]
        if part.ends is not None:
            self._add_ragged(part, part.ends, x, outs)
            return
        grid = (x if part.gather is None else x[part.gather]).view(-1, part.longest, x.shape[1])
        h = torch.bmm(grid, self.a[part.lanes])
        for i, out in enumerate(outs):
            if not self.live[i]:
                continue
            inner, b = h[..., i * self.rank : (i + 1) * self.rank], self.b[i][part.lanes]
            rows = out[part.tokens]
            if part.scatter is None:
                rows.view(-1, part.longest, rows.shape[1]).baddbmm_(inner, b)
            else:
                rows += torch.bmm(inner, b).flatten(0, 1)[part.scatter]

    def _add_ragged(self, part: LanePart, ends: Tensor, x: Tensor, outs: Sequence[Tensor]) -> None:
        h = F.grouped_mm(x, self.a[part.lanes], offs=ends)
        for i, out in enumerate(outs):
            if self.live[i]:
                inner = h[:, i * self.rank : (i + 1) * self.rank].contiguous()
                out[part.tokens] += F.grouped_mm(inner, self.b[i][part.lanes], offs=ends)


class Site:
    """The LoRA matrices of all modules that read one input: their A's are one product."""

    def __init__(self, modules: Sequence[str], shapes: Sequence[tuple[int, int]]) -> None:
        self.modules = tuple(modules)
        self.shapes = tuple(shapes)
        self.stacks: dict[int, LaneStack] = {}

    def add(self, plan: Plan, x: Tensor, outs: Sequence[Tensor]) -> None:
        """outs[i] += B_i A_i x, each row by its own adapter, in place."""
        for part in plan:
            self.stacks[part.rank].add(part, x, outs)


def bucket(rank: int) -> int:
    """The least of 8, 16, 32, 64 ... that holds it."""
    return max(LEAST_RANK, 1 << (rank - 1).bit_length())


def assign(held: Mapping[Key, int], wanted: Iterable[Key]) -> dict[Key, int]:
    """Lanes for the wanted adapters: who has one keeps it, unless that leaves more than half of the lanes idle."""
    keys = sorted(set(wanted), key=lambda key: held.get(key, len(held) + 1))
    limit = 2 * len(keys)
    kept = {key: held[key] for key in keys if held.get(key, limit) < limit}
    free = (lane for lane in range(limit) if lane not in kept.values())
    return kept | {key: next(free) for key in keys if key not in kept}


class _Bucket:
    """Which adapter lies in which lane of one bucket's stacks. It keeps none in memory: a lane of one gone is free."""

    def __init__(self, rank: int, sites: Sequence[Site], like: Tensor) -> None:
        self._rank, self._sites, self._like = rank, sites, like
        self._held: WeakKeyDictionary[LoraWeights, int] = WeakKeyDictionary()
        self._capacity = self._idle = 0

    def seat(self, wanted: Set[LoraWeights]) -> dict[LoraWeights, int]:
        lanes = assign(dict(self._held), wanted)
        roomy = 1 << (len(lanes) - 1).bit_length()
        if len(lanes) > self._capacity or self.idles(4 * roomy < self._capacity):
            self._make_room(roomy, len(wanted))
            lanes = assign({}, wanted)
        for weights, lane in lanes.items():
            if self._held.get(weights) != lane:
                self._fill(weights, lane)
        return lanes

    def idles(self, idle: bool) -> bool:
        """Most of it, in this step and in so many before it: its memory is due."""
        self._idle = self._idle + 1 if idle else 0
        return self._idle > IDLE_STEPS

    def clear(self) -> None:
        """It has no lanes and no memory, whatever it had."""
        self._held.clear()
        self._capacity = self._idle = 0
        for site in self._sites:
            site.stacks.pop(self._rank, None)

    def _make_room(self, roomy: int, least: int) -> None:
        """Room for some more, so that not every newcomer moves all; where memory is short, for these alone."""
        try:
            self._allocate(roomy)
        except (MemoryError, RuntimeError):  # so torch says it, of a device and of a host
            if least == roomy:
                raise
        if not self._capacity:
            self._allocate(least)  # not before the error is gone, and with it what it holds

    def _allocate(self, capacity: int) -> None:
        """At all sites, or at none."""
        self.clear()  # before the new ones: both at once may not fit
        try:
            for site in self._sites:
                site.stacks[self._rank] = LaneStack(capacity, self._rank, site.shapes, self._like)
        except BaseException:
            self.clear()
            raise
        self._capacity = capacity

    def _fill(self, weights: LoraWeights, lane: int) -> None:
        for other in [other for other, place in self._held.items() if place == lane]:
            del self._held[other]
        for site in self._sites:
            site.stacks[self._rank].fill(lane, [weights.pairs.get(module) for module in site.modules])
        self._held[weights] = lane


class Lanes:
    """Which adapter lies where, at all sites. A newcomer moves nobody of another bucket."""

    def __init__(self, sites: Sequence[Site], like: Tensor) -> None:
        self._sites = tuple(sites)
        self._like = like
        self._buckets: dict[int, _Bucket] = {}

    def seat(self, wanted: Set[LoraWeights]) -> dict[LoraWeights, Place]:
        """Puts the wanted adapters into lanes and says where; others stay until somebody needs their place."""
        by_rank: dict[int, set[LoraWeights]] = {}
        for weights in wanted:
            by_rank.setdefault(bucket(weights.rank), set()).add(weights)
        self._release(by_rank)
        places: dict[LoraWeights, Place] = {}
        for rank, members in by_rank.items():
            if rank not in self._buckets:
                self._buckets[rank] = _Bucket(rank, self._sites, self._like)
            places |= {weights: Place(rank, lane) for weights, lane in self._buckets[rank].seat(members).items()}
        return places

    def _release(self, wanted: Iterable[int]) -> None:
        """Of the buckets that nobody wanted for long."""
        for rank in [rank for rank, held in self._buckets.items() if rank not in wanted and held.idles(True)]:
            self._buckets.pop(rank).clear()
