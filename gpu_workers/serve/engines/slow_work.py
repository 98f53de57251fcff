"""Work on questions that would hold the event loop up: in threads of its own, so that nothing else waits behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
THREADS = 2


class SlowWork:
    """One piece of work of an owner at a time, in the order asked: owners take turns at the few threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "slow-work")
        self._turns: dict[str | None, tuple[asyncio.Lock, list[None]]] = {}

    async def do(self, owner: str | None, work: Callable[[], Result]) -> Result:
        """Work that has begun cannot be called back: who gives it up waits for its end, and so holds its turn."""
        with self._turn(owner) as turn:
            async with turn:
                done = asyncio.get_running_loop().run_in_executor(self._threads, work)
                try:
                    return await asyncio.shield(done)
                except asyncio.CancelledError:
                    await _ended(done)
                    raise

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _turn(self, owner: str | None) -> Iterator[asyncio.Lock]:
        """Kept as long as anybody of this owner is here."""
        lock, here = self._turns.setdefault(owner, (asyncio.Lock(), []))
        here.append(None)
        try:
            yield lock
        finally:
            here.pop()
            if not here:
                del self._turns[owner]


async def _ended(done: asyncio.Future[Result]) -> None:
    """Its outcome is of no interest any more. Who is told several times to go waits all the same."""
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([done])
    if not done.cancelled():
        done.exception()
