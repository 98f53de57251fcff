"""k new tokens a row look at what is in the row's pages. Rows of like size are one product; no row pays for another's
length."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_workers.serve.engine.kv import KVCache
from gpu_workers.serve.engine.moved import moved

FEW_PAGES = 4
"""Reaches up to so many pages are alike."""


class RowSpan(NamedTuple):
    """A row's part of a step."""

    first: int
    """Of its new tokens, among the step's."""
    start: int
    """Where that one stands in the row."""
    length: int
    pages: Sequence[int]
    """That hold its places up to the last new one."""


class Attention:
    """How the rows of one step read the cache. Made once a step, used by every layer."""

    def __init__(self, spans: Sequence[RowSpan], cache: KVCache, heads: int, kv_heads: int) -> None:
        laid = [_Laid.of(part) for part in alike(spans, cache.pages)]
        indices = [torch.from_numpy(each.ravel()) for layout in laid for each in layout.indices]
        there = iter(moved(indices, cache.store[0].device))
        self._groups = [
            _Alike(layout, [next(there) for _ in layout.indices], cache, heads, kv_heads) for layout in laid
        ]

    def __call__(self, store: Tensor, q: Tensor) -> Tensor:
        """q is [tokens, heads, width], and so is what comes back."""
        if len(self._groups) == 1 and self._groups[0].whole:
            return self._groups[0].seen(store, q)
        out = torch.empty_like(q)
        for group in self._groups:
            group.put(group.seen(store, group.take(q)), out)
        return out


def alike(spans: Sequence[RowSpan], pages: int) -> Iterable[list[RowSpan]]:
    """Rows that are read together: they pad each other to twice their size at most. What is copied of a layer at once
    is never more than a layer has."""
    parts: dict[tuple[int, int], list[RowSpan]] = {}
    for span in spans:
        reach = max(FEW_PAGES, len(span.pages))
        parts.setdefault(((span.length - 1).bit_length(), (reach - 1).bit_length()), []).append(span)
    for part in parts.values():
        at_once = max(1, pages // max(len(span.pages) for span in part))
        yield from (part[i : i + at_once] for i in range(0, len(part), at_once))


class _Laid(NamedTuple):
    """Padded to one count of tokens, each row with its own last one, and to one count of pages, with page 0."""

    rows: int
    longest: int
    pages: int
    whole: bool
    """Its tokens are the step's first ones, none twice."""
    indices: Sequence[np.ndarray[Any, np.dtype[np.int64]]]
    """Its tokens, where they stand in their rows, which are no padding, and its table of pages."""

    @classmethod
    def of(cls, spans: Sequence[RowSpan]) -> Self:
        firsts, starts, lengths = np.array([(span.first, span.start, span.length) for span in spans]).T[:, :, None]
        count, pages = int(lengths.max()), max(len(span.pages) for span in spans)
        places = np.arange(count)
        grid = np.minimum(places, lengths - 1)
        tokens, real = firsts + grid, np.flatnonzero(places < lengths)
        table = np.zeros((len(spans), pages), np.int64)
        for row, span in zip(table, spans, strict=True):
            row[: len(span.pages)] = span.pages
        whole = bool((tokens.ravel() == np.arange(tokens.size)).all())
        return cls(len(spans), count, pages, whole, (tokens, starts + grid, real, table))


class _Alike:
    """Rows of like size: one product."""

    def __init__(self, laid: _Laid, indices: Sequence[Tensor], cache: KVCache, heads: int, kv_heads: int) -> None:
        self._tokens, places, self._real, self._table = indices
        self._rows, self._count, self.whole = laid.rows, laid.longest, laid.whole
        self._cache, self._kv, self._shared = cache, kv_heads, heads // kv_heads
        self._reach = laid.pages * cache.size
        hidden = torch.arange(self._reach, device=places.device) > places.view(self._rows, self._count, 1)
        mask = torch.zeros(hidden.shape, dtype=cache.store[0].dtype, device=places.device)
        mask.masked_fill_(hidden, float("-inf"))
        self._mask = (mask if self._count == 1 else mask.repeat_interleave(self._shared, 1)).unsqueeze(1)

    def take(self, q: Tensor) -> Tensor:
        return q[self._tokens]

    def put(self, seen: Tensor, out: Tensor) -> None:
        out[self._tokens[self._real]] = seen[self._real]

    def seen(self, store: Tensor, q: Tensor) -> Tensor:
        """The heads that share a KV head are rows of one product."""
        width = q.shape[-1]
        keys, values = (
            side.view(self._kv, self._rows, self._reach, width).transpose(0, 1)
            for side in self._cache.near(store, self._table)
        )
        q = q.view(self._rows, self._count, self._kv, self._shared, width).transpose(1, 2)
        seen: Tensor = F.scaled_dot_product_attention(q.flatten(2, 3), keys, values, attn_mask=self._mask)
        by_token = seen.view(self._rows, self._kv, self._count, self._shared, width).transpose(1, 2)
        return by_token.reshape(-1, self._kv * self._shared, width)
