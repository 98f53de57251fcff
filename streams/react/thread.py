"""An event loop in a thread of its own: code that stands still there holds up nobody else, and is given up in time."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from schemas.errors import Retry
from streams.fairness.slices import unheard

LOOK_SECONDS = 1.0
"""A loop that does not answer for so long is in code that never waits."""
STOP_SECONDS = 0.5
LEFT_MOST = 8
"""Threads that are left behind in such code. They take processor time, and nobody can end them."""
Work = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


class OutOfTime(Exception):
    """A try has not come to its end in its time."""


class LeftBehind(Retry):
    """Threads that nobody can end: only the process can."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{LEFT_MOST} runs of {name} stand in code that never waits, and take the processor. Each was given up by "
            f"name (`rillfold dlq list`). The process ends so that its supervisor starts it anew; give what it calls a "
            f"time limit."
        )


class OwnThread:
    """Runs one coroutine at a time. A thread that does not come back is left, and the next run has a new one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._left: list[threading.Thread] = []

    async def run(self, work: Work, seconds: float, beat: Callable[[], None] = unheard) -> BaseException | None:
        """What it raised, whatever that is; `OutOfTime` where it has not ended; None where it went well."""
        loop = self._begun()
        running = asyncio.run_coroutine_threadsafe(_ended(work), loop)
        waited, left = asyncio.wrap_future(running), seconds
        while left > 0 and not waited.done():
            await asyncio.wait({waited}, timeout=min(left, LOOK_SECONDS))
            left -= LOOK_SECONDS
            beat()
        if waited.done():
            return waited.result()
        running.cancel()
        if not await _answers(loop):
            self._leave(loop)
        return OutOfTime(f"it has not ended within {seconds:g} s")

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)
        self._loop = None

    def left(self) -> int:
        """So many threads stand somewhere still."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    def _begun(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            if self.left() >= LEFT_MOST:
                raise LeftBehind(self._name)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_forever, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        log.warning("%s stands in code that never waits: its thread is left behind", self._name)
        loop.call_soon_threadsafe(loop.stop)  # should it ever come back
        assert self._thread is not None
        self._left.append(self._thread)
        self._loop = None


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


async def _ended(work: Work) -> BaseException | None:
    """Nothing that is raised in there leaves it: not even what wants to end the process."""
    try:
        await work()
    except BaseException as error:
        return error
    return None


async def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    heard: Future[None] = Future()
    loop.call_soon_threadsafe(heard.set_result, None)
    await asyncio.wait({asyncio.wrap_future(heard)}, timeout=LOOK_SECONDS)
    return heard.done()
