"""The HTTP door of a serving process, beside whatever else the process does."""

import asyncio
import signal
import socket
from collections.abc import Coroutine
from types import FrameType
from typing import Any

import uvicorn

from gpu_workers.refused import EngineStopped
from gpu_workers.serve.port import InferenceEngine
from rillfold.http.bound import address_of, bound
from rillfold.http.operator import operator_of
from rillfold.http.wire import wire
from rillfold.settings import Settings
from rillfold.v1.door import serving_app
from rillfold.v1.drain import Drain
from schemas.errors import Stop

# What is left when everybody was served, or nobody waits any more: connections without a question.
GRACE_SECONDS = 3
LOOK_SECONDS = 1.0


async def until_it_stops(engine: InferenceEngine) -> None:
    """Raises EngineStopped, if that ever comes."""
    while engine.alive():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    raise EngineStopped("The engine does not work any more; restart the process.")


class Door(uvicorn.Server):
    """Open until SIGTERM or SIGINT, or until the work beside it ends.

    The first signal ends the work, and lets nobody new in: what is under way is answered, for so long as the settings
    say. A second one ends that too.
    """

    def __init__(self, engine: InferenceEngine, settings: Settings) -> None:
        self._settings, self._drain = settings, Drain()
        config = uvicorn.Config(
            serving_app(engine, operator_of(settings), self._drain),
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            **wire(),
        )
        super().__init__(config)
        self._open, self._leaving = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""
        """Where it listens, once it does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal is not raised again afterwards, as uvicorn does: the process ends by itself, with 0."""
        if self._drain.begun or self._loop is None:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
            return
        self._drain.begin()
        self._loop.call_soon_threadsafe(self._leaving.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._open.set()

    async def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """The work begins when HTTP answers. If it fails, the process ends with its error."""
        self._loop = asyncio.get_running_loop()
        host = self._settings.serve_host
        try:
            taken = bound(host, self._settings.serve_port, "RILLFOLD_SERVE_PORT")
        except BaseException:
            work.close()
            raise
        self.url = address_of(host, taken)
        serving = asyncio.ensure_future(self.serve(sockets=[taken]))
        working = asyncio.ensure_future(self._after_opening(work))
        leaving = asyncio.ensure_future(self._leaving.wait())
        await asyncio.wait({serving, working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()  # what is open in the log stays there, for others to take at once
        if not serving.done() and leaving.done():
            served = asyncio.ensure_future(self._drain.ended(self._settings.serve_drain_seconds))
            await asyncio.wait({serving, served}, return_when=asyncio.FIRST_COMPLETED)
            served.cancel()
        self.should_exit = True
        leaving.cancel()
        results = await asyncio.gather(serving, working, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _after_opening(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self._open.wait()
            if not self.started:
                raise Stop(f"HTTP does not begin on {self.url}: the log says why.")
        except BaseException:
            work.close()
            raise
        await work
