"""Keys and values of all rows, in pages of one store that is made once and never grows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpu_workers.serve.engine.moved import moved


class KVCache:
    """One tensor a layer: [2, kv heads, pages, page x head width]. A page is so many places of one row, or of several
    whose prompts begin alike.

    Page 0 is nobody's and always zero: what is shorter than its neighbours is filled up with it.
    """

    def __init__(self, layers: int, kv_heads: int, width: int, like: Tensor, pages: int, size: int) -> None:
        self.size, self.pages = size, pages
        self._width = width
        self.store = [like.new_empty(2, kv_heads, pages, size * width) for _ in range(layers)]
        self._near = like.new_empty(2, kv_heads * pages * size * width)
        self.clear([0])

    @property
    def bytes(self) -> int:
        return sum(layer.nbytes for layer in self.store)

    def clear(self, pages: Sequence[int]) -> None:
        """Before they are used. A masked place has weight 0, and 0 times what a row left there may be no number."""
        if pages:
            [index] = moved([torch.tensor(pages)], self.store[0].device)
            for layer in self.store:
                layer.index_fill_(2, index, 0.0)

    def near(self, layer: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of keys and values of these pages, as many as a layer has at most, one after another as they are read.
        They last until the next are asked for: all layers and all rows take turns in one place."""
        heads, width = layer.shape[1], layer.shape[3]
        keys, values = (
            torch.index_select(side, 1, table, out=room[: heads * len(table) * width].view(heads, -1, width))
            for side, room in zip(layer, self._near, strict=True)
        )
        return keys, values

    def write(self, layer: int, cells: Tensor, keys: Tensor, values: Tensor) -> None:
        """`cells[i]` is token i's place: page x size + place in the page. Keys, values: [tokens, kv heads, width]."""
        store = self.store[layer]
        for side, new in zip(store.view(2, store.shape[1], -1, self._width), (keys, values), strict=True):
            side.index_copy_(1, cells, new.transpose(0, 1))


def page_bytes(layers: int, kv_heads: int, width: int, like: Tensor, size: int) -> int:
    """What a page costs, with its share of the copy of one layer that attention makes while it reads."""
    return 2 * (layers + 1) * kv_heads * width * size * like.element_size()
