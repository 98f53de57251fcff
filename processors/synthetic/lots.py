"""Choices by chance that are always the same ones: lots drawn under a name."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

from processors.measure.draws import draws

Thing = TypeVar("Thing")


class Lots:
    """The same names give the same choices, in the same order, on every machine."""

    def __init__(self, *names: object) -> None:
        said = "/".join(map(str, names))
        self._drawn = draws(int.from_bytes(sha256(said.encode()).digest()[:8]))

    def below(self, most: int) -> int:
        return next(self._drawn) % most

    def between(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def share(self, of: float) -> bool:
        """True so often, of one."""
        return next(self._drawn) < of * 2**64

    def one(self, things: Sequence[Thing]) -> Thing:
        return things[self.below(len(things))]

    def weighed(self, weights: Sequence[float]) -> int:
        """A place in the list, so much the likelier as its weight is larger."""
        left = next(self._drawn) / 2**64 * sum(weights)
        for place, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return place
        return max(place for place, weight in enumerate(weights) if weight > 0)

    def mixed(self, things: Sequence[Thing]) -> list[Thing]:
        rest, order = list(things), []
        while rest:
            order.append(rest.pop(self.below(len(rest))))
        return order
