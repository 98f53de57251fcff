"""Lines before doors: under each key so many at a time, the others in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from math import inf


class Turns:
    """`each` at a time under one key. Nobody waits for what another key does."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._doors: dict[Hashable, _Door] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        await self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    async def enter(self, key: Hashable, patience: float = inf) -> bool:
        """False: in so many seconds nobody went through, and nothing before this one was `proven` to get on."""
        door = self._doors.setdefault(key, _Door())
        if door.inside < self._each and not door.line:
            door.inside += 1
            return True
        return await self._in_line(key, door, patience)

    def leave(self, key: Hashable) -> None:
        door = self._doors[key]
        while door.line:
            following = door.line.popleft()
            if not following.done():
                following.set_result(None)
                return
        door.inside -= 1
        if not door.inside:
            del self._doors[key]

    def proven(self, key: Hashable) -> None:
        """It gets on behind this door: whoever waits has reason to wait on."""
        if key in self._doors:
            self._doors[key].proven = asyncio.get_running_loop().time()

    async def _in_line(self, key: Hashable, door: _Door, patience: float) -> bool:
        clock = asyncio.get_running_loop().time
        turn, since = asyncio.get_running_loop().create_future(), clock()
        door.line.append(turn)
        try:
            while not turn.done():
                left = max(since, door.proven) + patience - clock()
                if left <= 0:
                    return False
                await asyncio.wait((turn,), timeout=None if left == inf else left)
            return True
        except asyncio.CancelledError:
            if turn.done():
                self.leave(key)
            raise
        finally:
            # One that is not waited for any more is skipped when its turn comes.
            turn.cancel()


class _Door:
    def __init__(self) -> None:
        self.inside = 0
        self.line: deque[asyncio.Future[None]] = deque()
        self.proven = -inf
