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
from rillfold.http.operator import operator_of
from rillfold.http.wire import wire
from rillfold.settings import Settings
from rillfold.v1.door import serving_app
from schemas.errors import Stop

# Answers that take longer end with the process: who streams them asks again.
GRACE_SECONDS = 3
LOOK_SECONDS = 1.0


async def until_it_stops(engine: InferenceEngine) -> None:
    """Raises EngineStopped, if that ever comes."""
    while engine.alive():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    raise EngineStopped("The engine does not work any more; restart the process.")


class Door(uvicorn.Server):
    """Open until SIGTERM or SIGINT, or until the work beside it ends."""

    def __init__(self, engine: InferenceEngine, settings: Settings) -> None:
        config = uvicorn.Config(
            serving_app(engine, operator_of(settings)),
            settings.serve_host,
            settings.serve_port,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            **wire(),
        )
        super().__init__(config)
        self._open = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn does it, but the signal is not raised again afterwards: the process ends by itself, with 0."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._open.set()

    async def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """The work begins when HTTP answers. If it fails, the process ends with its error."""
        serving = asyncio.ensure_future(self.serve())
        working = asyncio.ensure_future(self._after_opening(work))
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
        self.should_exit = True
        working.cancel()
        results = await asyncio.gather(serving, working, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _after_opening(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self._open.wait()
            if not self.started:
                raise Stop(f"HTTP cannot listen on {self.config.host}:{self.config.port}: set RILLFOLD_SERVE_PORT.")
        except BaseException:
            work.close()
            raise
        await work
