"""Keys and values of the running rows. Row slots stay dense: 0 .. running-1, so a decode step reads one plain slice."""

from torch import Tensor

GROWTH = 128


class KVCache:
    """One tensor a layer, [2, slots, kv heads, positions, head width]; a slot is one row's, so one adapter version's.

    `cells` (slots x positions) is a promise that holds at any moment: layers grow one after another, so that the copy
    costs one layer, and `usable` leaves room for it.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, like: Tensor, cells: int) -> None:
        self._heads, self._width = kv_heads, head_dim
        self._like = like
        self.usable = cells * layers // (layers + 1)
        self.store = [self._empty(0, 0) for _ in range(layers)]

    @property
    def slots(self) -> int:
        return self.store[-1].shape[1]

    @property
    def positions(self) -> int:
        return self.store[-1].shape[3]

    def reserve(self, slots: int, positions: int) -> None:
        """Room for that many rows of that length, which the schedule keeps within `usable`."""
        if slots <= self.slots and positions <= self.positions:
            return
        shape = self._shape(slots, positions)
        kept, filled = min(shape[0], self.slots), min(shape[1], self.positions)
        for i, old in enumerate(self.store):
            grown = self._empty(*shape)
            grown[:, :kept, :, :filled] = old[:, :kept, :, :filled]
            self.store[i] = grown
            del old

    def clear(self, slots: slice) -> None:
        """Before a row moves in. A masked position has weight 0, and 0 times what a row left there may be no number."""
        for layer in self.store:
            layer[:, slots].zero_()

    def move(self, source: int, target: int) -> None:
        """The row of slot `source` now lives in `target`, with all of its slot: nothing of the former row stays."""
        for layer in self.store:
            layer[:, target] = layer[:, source]

    def release(self) -> None:
        """Nobody runs: give the memory back."""
        self.store = [self._empty(0, 0) for _ in self.store]

    def _shape(self, slots: int, positions: int) -> tuple[int, int]:
        """Grows in steps, so that it is seldom moved; takes the largest of a few shapes that keeps the promise."""
        wide, long = 1 << (slots - 1).bit_length(), -(-positions // GROWTH) * GROWTH
        shapes = [(max(wide, self.slots), max(long, self.positions)), (wide, long), (slots, long)]
        return next((shape for shape in shapes if shape[0] * shape[1] <= self.usable), (slots, self.usable // slots))

    def _empty(self, slots: int, positions: int) -> Tensor:
        return self._like.new_zeros(2, slots, self._heads, positions, self._width)
