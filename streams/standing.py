"""Where a plain member of a group stands. Its loop writes this down; the watchman reads it from another thread."""

from __future__ import annotations

from collections.abc import Mapping

from streams.log import Subscription, TopicPartition
from streams.watch import Sight


class Standing:
    """Each change replaces what another thread may be reading."""

    def __init__(self) -> None:
        self._generation = 0
        self._next: Mapping[TopicPartition, int] = {}
        self._beats = 0

    async def found(self, subscription: Subscription) -> None:
        """After a poll. What was given out anew stands where the group has committed, whoever did that."""
        generation = subscription.generation()
        if generation == self._generation:
            return
        self._next = await subscription.committed()
        self._generation = generation

    def reached(self, offsets: Mapping[TopicPartition, int]) -> None:
        """After a commit."""
        if any(self._next.get(tp) != offset for tp, offset in offsets.items()):
            self._next = {**self._next, **offsets}

    def beat(self) -> None:
        """Something was done on the way to the next commit, which may be an hour away."""
        self._beats += 1

    def sight(self) -> Sight:
        return Sight("working" if self._generation else "joining", self._next, self._beats)
