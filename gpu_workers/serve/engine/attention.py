"""k new tokens a row look at what is in the row's pages. Rows of like size are one product; no row pays for another's
length."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_workers.serve.engine.kv import KVCache

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
        self._groups = [_Alike(part, cache, heads, kv_heads) for part in alike(spans, cache.pages)]

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


class _Alike:
    """Padded to one count of tokens, each row with its own last one, and to one count of pages, with page 0."""

    def __init__(self, spans: Sequence[RowSpan], cache: KVCache, heads: int, kv_heads: int) -> None:
        device, dtype = cache.store[0].device, cache.store[0].dtype
        self._rows, self._count = len(spans), max(span.length for span in spans)
        self._kv, self._shared = kv_heads, heads // kv_heads
        pages = max(len(span.pages) for span in spans)
        self._reach = pages * cache.size
        grid = [[min(i, span.length - 1) for i in range(self._count)] for span in spans]
        tokens = [span.first + i for span, row in zip(spans, grid, strict=True) for i in row]
        self.whole = tokens == list(range(len(tokens)))
        """Its tokens are the step's first ones, none twice."""
        table = [page for span in spans for page in (*span.pages, *[0] * (pages - len(span.pages)))]
        real = [row * self._count + i for row, span in enumerate(spans) for i in range(span.length)]
        stands = [span.start + i for span, row in zip(spans, grid, strict=True) for i in row]
        self._tokens, self._table, self._real, places = (
            torch.tensor(each, device=device) for each in (tokens, table, real, stands)
        )
        hidden = torch.arange(self._reach, device=device) > places.view(self._rows, self._count, 1)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
        self._mask = (mask if self._count == 1 else mask.repeat_interleave(self._shared, 1)).unsqueeze(1)
        self._near = [
            torch.empty(kv_heads, len(table), cache.store[0].shape[3], dtype=dtype, device=device) for _ in "kv"
        ]

    def take(self, q: Tensor) -> Tensor:
        return q[self._tokens]

    def put(self, seen: Tensor, out: Tensor) -> None:
        out[self._tokens[self._real]] = seen[self._real]

    def seen(self, store: Tensor, q: Tensor) -> Tensor:
        """The heads that share a KV head are rows of one product."""
        width = q.shape[-1]
        keys, values = (
            torch.index_select(side, 1, self._table, out=near)
            .view(self._kv, self._rows, self._reach, width)
            .transpose(0, 1)
            for side, near in zip(store, self._near, strict=True)
        )
        q = q.view(self._rows, self._count, self._kv, self._shared, width).transpose(1, 2)
        seen: Tensor = F.scaled_dot_product_attention(q.flatten(2, 3), keys, values, attn_mask=self._mask)
        by_token = seen.view(self._rows, self._kv, self._count, self._shared, width).transpose(1, 2)
        return by_token.reshape(-1, self._kv * self._shared, width)
