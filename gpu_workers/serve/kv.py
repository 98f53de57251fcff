"""Keys and values of the running rows. Row slots stay dense: 0 .. running-1, so a decode step reads one plain slice."""

from __future__ import annotations

from torch import Tensor

GROWTH = 128


class KVCache:
    """One tensor [layers, 2, slots, kv heads, positions, head width]; a slot is one row's, so one adapter version's."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, like: Tensor) -> None:
        self._shape = (layers, kv_heads, head_dim)
        self._like = like
        self.store = like.new_empty(layers, 2, 0, kv_heads, 0, head_dim)

    @property
    def slots(self) -> int:
        return self.store.shape[2]

    @property
    def positions(self) -> int:
        return self.store.shape[4]

    def reserve(self, slots: int, positions: int) -> None:
        """Room for that many rows of that length; grows in steps, so that it is seldom moved.

        Zeroed: a masked position has weight 0, and 0 times what memory happened to hold may be no number.
        """
        if slots <= self.slots and positions <= self.positions:
            return
        layers, kv_heads, head_dim = self._shape
        slots = max(1 << (slots - 1).bit_length(), self.slots)
        positions = max(-(-positions // GROWTH) * GROWTH, self.positions)
        grown = self._like.new_zeros(layers, 2, slots, kv_heads, positions, head_dim)
        grown[:, :, : self.slots, :, : self.positions] = self.store
        self.store = grown

    def move(self, source: int, target: int, length: int) -> None:
        """The row of slot `source` now lives in `target`."""
        self.store[:, :, target, :, :length] = self.store[:, :, source, :, :length]

    def release(self) -> None:
        """Nobody runs: give the memory back."""
        self.store = self.store[:, :, :0, :, :0].clone()
