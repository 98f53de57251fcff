"""Where a plain member of a group stands. Its loop writes this down; the watchman reads it from another thread."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from streams.health.watch import Phase, Sight
from streams.log.port import Subscription, TopicPartition


class Standing:
    """Each change replaces what another thread may be reading."""

    def __init__(self) -> None:
        self._generation = 0
        self._next: Mapping[TopicPartition, int] = {}
        self._beats = 0
        self._restoring = False

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

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """What must be read before the group is joined, however much it is: each beat shows that it gets on."""
        self._restoring = True
        try:
            yield
        finally:
            self._restoring = False

    def sight(self) -> Sight:
        phase: Phase = "restoring" if self._restoring else "working" if self._generation else "joining"
        return Sight(phase, self._next, self._beats)
