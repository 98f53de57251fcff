"""A watchman over a worker of the test's own, on a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streams.health.watch import Patience, Stalled
from streams.health.watchman import Look, Watchman
from streams.log.port import EventLog


class Watching:
    def __init__(self, look: Look, log: EventLog) -> None:
        self._log, self._now = log, 0.0
        self.codes: list[int] = []
        self._watchman = Watchman(look, Patience(25, 60), lambda: self._now, self.codes.append)

    async def until(self, now: float, each: Callable[[], Awaitable[None]] | None = None) -> None:
        """A look each second, as in a worker; `each` is what happens between two of them."""
        while self._now < now:
            self._now += 1
            if each is not None:
                await each()
            await self._watchman.step(self._log)

    def stalled(self) -> str | None:
        return self._watchman.verdict.what if isinstance(self._watchman.verdict, Stalled) else None


async def breathe() -> None:
    """Whatever can go on in this loop goes on."""
    for _ in range(50):
        await asyncio.sleep(0)
