"""What is seen of questions on their way through the engine: plain counts, read by whoever shows them.

Labels are bounded: a company is one of a class, whichever it is.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Who = Literal["operator", "company"]
WHO: tuple[Who, ...] = ("operator", "company")
SOON = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BETWEEN = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds: the upper bounds of what is counted together."""


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """For each upper bound how many were at most that."""
        found, so_far = list[tuple[str, float]](), 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], list(self._counts), strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


class Visit:
    """One question, from the moment that it is asked."""

    def __init__(self, seen: Seen, company: str | None, adapter: str | None) -> None:
        self._seen, self.adapter = seen, adapter
        self._who: Who = "operator" if company is None else "company"
        self._asked = seen.clock()
        self._last: float | None = None
        self._in = False
        self.prompt = self.tokens = 0
        """Of the prompt, once it is cut into tokens, and said so far."""

    @property
    def running(self) -> bool:
        return self._in

    def let_in(self) -> None:
        """Its row is in the batch: it waits no more. Heard of once."""
        if not self._in:
            self._in = True
            self._seen.queued[self._who].add(self._seen.clock() - self._asked)

    def said(self) -> None:
        """One more token."""
        self.let_in()
        now = self._seen.clock()
        if self._last is None:
            self._seen.first[self._who].add(now - self._asked)
        else:
            self._seen.between[self._who].add(now - self._last)
        self._last = now
        self.tokens += 1


class Seen:
    """Of one engine, so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.queued = {who: Histogram(SOON) for who in WHO}
        self.first = {who: Histogram(SOON) for who in WHO}
        self.between = {who: Histogram(BETWEEN) for who in WHO}
        self._visits: dict[Visit, None] = {}

    @contextmanager
    def visit(self, company: str | None, adapter: str | None) -> Iterator[Visit]:
        visit = Visit(self, company, adapter)
        self._visits[visit] = None
        try:
            yield visit
        finally:
            del self._visits[visit]

    def adapters(self, running: bool) -> list[str]:
        """Names of those that rows in the batch use, or that questions wait for."""
        return sorted({visit.adapter for visit in list(self._visits) if visit.adapter and visit.running is running})
