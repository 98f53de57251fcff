"""A group whose leader was started anew watches no topics: the broker calls the member its leader that it was before.

Which topics there are, a group's leader alone looks at. A worker that comes back under its name (`group.instance.id`)
is given its partitions without a rebalance and, before version 9 of JoinGroup, the leader's former id: it does not know
that it leads. To join once more makes it the leader, and tells of nothing where another leads.
"""

from collections.abc import Mapping
from typing import NamedTuple

PATIENCE = 10.0
"""Seconds in which a leader that knows of itself would have begun a rebalance."""

Topics = Mapping[str, int]
"""How many partitions each topic of the group has; 0: there is none of that name."""


class Given(NamedTuple):
    """What the group's partitions were given out by."""

    generation: int
    topics: Topics


class Unled:
    def __init__(self) -> None:
        self._given: Given | None = None
        self._since: float | None = None

    def asks(self, seen: Given, now: float) -> bool:
        """Whether to join once more: topics have come or gone for a while, and nobody has given them out."""
        if self._given is None or self._given.generation != seen.generation:
            self._given = seen
        if self._given.topics == seen.topics:
            self._since = None
            return False
        if self._since is None or now - self._since < PATIENCE:
            self._since = now if self._since is None else self._since
            return False
        self._since = now
        return True
