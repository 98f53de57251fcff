"""How a run under way is over early: it may be taken back, from the task beside its own that hears of it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from schemas.envelope import Event


class TakenBack(Exception):
    """Nobody wants what is made here any more. What was under way is stopped."""


class Overtaken(Exception):
    """Another has claimed the run: whatever is made of it here, nothing is said."""


class Ended(Exception):
    """The run is over; this event says how."""

    def __init__(self, event: Event) -> None:
        self.event = event


class Wishes:
    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str], asyncio.Timeout] = {}

    @asynccontextmanager
    async def held(self, company: str, run: str) -> AsyncIterator[None]:
        """Raises `TakenBack` where it is. What comes after this is not stopped."""
        scope = self._scopes[company, run] = asyncio.timeout(None)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise TakenBack from None
        finally:
            self._scopes.pop((company, run), None)

    def take_back(self, runs: Mapping[str, Collection[str]]) -> None:
        """By company. Those that are not under way are somebody else's to end; once is enough."""
        for company, run in list(self._scopes):
            if run in runs.get(company, ()):
                self._scopes.pop((company, run)).reschedule(0)
