"""Who comes in, before anything is done for it: so many questions, so many adapters, so many tokens a minute.

Companies take turns.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

from gpu_workers.refused import QueueFull, TooFast
from gpu_workers.serve.catalogue import Residency
from gpu_workers.serve.port import AdapterSpec, Question
from gpu_workers.serve.seen import Seen, Visit

LETTERS_A_TOKEN = 4
"""Of what is not cut into tokens yet, roughly."""
MINUTE = 60.0
REMEMBERED = 1_024
"""Companies whose tokens are counted, before those that have all of theirs are forgotten."""


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
    company_tokens: int = 0
    """Of prompts and answers of one company in a minute. 0: any number."""


class Allowance:
    """Tokens of companies: each has those of a minute at once, and as they are used they come again, evenly.

    A question comes in while there are any, however long it is, and what it takes beyond them is waited for by the
    next: so none is too long to be ever let in, and a short one never passes it over for good.
    """

    def __init__(self, a_minute: int) -> None:
        self._most, self._rate = float(a_minute), a_minute / MINUTE
        self._left: dict[str, tuple[float, float]] = {}
        """Of a company that has not all: how many there were, and when."""
        self._forget_at = REMEMBERED

    def left(self, company: str, now: float) -> float:
        left, at = self._left.get(company, (self._most, now))
        return min(self._most, left + max(0.0, now - at) * self._rate)

    def wait(self, company: str | None, now: float) -> float:
        """Seconds until there are any; 0: there are."""
        if company is None or not self._most or (left := self.left(company, now)) > 0:
            return 0.0
        return max((1.0 - left) / self._rate, 0.001)

    def take(self, company: str | None, tokens: float, now: float) -> None:
        """Below 0 it gives back."""
        if company is not None and self._most:
            self._left[company] = min(self._most, self.left(company, now) - tokens), now
            self._forget(now)

    def charge(self, expected: float) -> float:
        """One question is never taken to cost more than a minute: what it costs is known at its end."""
        return min(max(0.0, expected), self._most)

    def _forget(self, now: float) -> None:
        if len(self._left) >= self._forget_at:
            short = [company for company in self._left if self.left(company, now) < self._most]
            self._left = {company: self._left[company] for company in short}
            self._forget_at = REMEMBERED + 2 * len(self._left)


class Questions:
    """All questions in the engine, from the moment that they are asked."""

    def __init__(self, bounds: EngineBounds, seen: Seen) -> None:
        self._bounds, self._seen = bounds, seen
        self._tokens = Allowance(bounds.company_tokens)
        self._by_company: Counter[str | None] = Counter()
        self.count = 0

    @contextmanager
    def counted(self, question: Question, letters: int) -> Iterator[Visit]:
        """Its tokens are guessed when it comes, and known when it goes, however it goes."""
        company = question.company
        self._room(company)
        guess = self._tokens.charge(letters / LETTERS_A_TOKEN + question.max_tokens)
        self._tokens.take(company, guess, self._seen.clock())
        self.count += 1
        self._by_company[company] += 1
        try:
            with self._seen.visit(company, question.adapter) as visit:
                try:
                    yield visit
                finally:
                    self._tokens.take(company, visit.prompt + visit.tokens - guess, self._seen.clock())
        finally:
            self.count -= 1
            self._by_company -= Counter([company])

    def _room(self, company: str | None) -> None:
        if self.count >= self._bounds.waiting:
            raise QueueFull(f"{self.count} questions wait already; ask again in a while.")
        if company is not None and (own := self._by_company[company]) >= self._bounds.company_waiting:
            raise QueueFull(f"{own} questions of company {company} wait already; ask again in a while.")
        if wait := self._tokens.wait(company, self._seen.clock()):
            most = self._bounds.company_tokens
            told = f"company {company} has used its {most} tokens of a minute up; ask again in {ceil(wait)} s."
            raise TooFast(told, wait)


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
