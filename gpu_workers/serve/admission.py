"""Who comes in, before anything is done for it: so many questions, so many adapters, and companies take turns."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpu_workers.refused import QueueFull
from gpu_workers.serve.catalogue import Residency
from gpu_workers.serve.port import AdapterSpec


@dataclass(frozen=True)
class EngineBounds:
    """What the engine takes in at once, from everybody and from one company."""

    capacity: int
    """Adapters in memory."""
    company_adapters: int
    """Adapters that questions of one company hold there."""
    waiting: int
    """Questions in the engine."""
    company_waiting: int


class Questions:
    """All questions in the engine, from the moment that they are asked."""

    def __init__(self, bounds: EngineBounds) -> None:
        self._bounds = bounds
        self._by_company: Counter[str | None] = Counter()
        self.count = 0

    @contextmanager
    def counted(self, company: str | None) -> Iterator[None]:
        if self.count >= self._bounds.waiting:
            raise QueueFull(f"{self.count} questions wait already; ask again in a while.")
        if company is not None and (own := self._by_company[company]) >= self._bounds.company_waiting:
            raise QueueFull(f"{own} questions of company {company} wait already; ask again in a while.")
        self.count += 1
        self._by_company[company] += 1
        try:
            yield
        finally:
            self.count -= 1
            self._by_company -= Counter([company])


class Seats:
    """Room for adapters. Who finds none waits; when there is some, the company that holds least comes first."""

    def __init__(self, residency: Residency[Any]) -> None:
        self._residency = residency
        self._waiting: list[tuple[AdapterSpec, asyncio.Future[None]]] = []

    async def take(self, spec: AdapterSpec) -> None:
        """Pins the adapter; whoever takes gives."""
        if self._residency.pin(spec):
            return
        place = spec, asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place[1]
        except asyncio.CancelledError:
            if place not in self._waiting:  # it was given in the same moment
                self.give(spec)
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)

    def give(self, spec: AdapterSpec) -> None:
        self._residency.unpin(spec)
        for place in sorted(self._waiting, key=lambda place: self._residency.pinned(place[0])):
            if not place[1].done() and self._residency.pin(place[0]):
                self._waiting.remove(place)
                place[1].set_result(None)
