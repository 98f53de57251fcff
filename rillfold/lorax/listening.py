"""/v1 on a port of this process, beside whatever else it does: signals and logging stay its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from gpu_workers.serve.port import InferenceEngine
from rillfold.http.bound import address_of, bound
from rillfold.http.operator import operator_of
from rillfold.http.wire import wire
from rillfold.settings import Settings
from rillfold.v1.door import serving_app
from schemas.errors import Stop

GRACE_SECONDS = 3


class _Listener(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.open = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.open.set()


@asynccontextmanager
async def listening(engine: InferenceEngine, settings: Settings) -> AsyncIterator[str]:
    """Its address. It takes the operator's token, as every port does behind which whole engines stand: whoever may
    open a connection on a machine is not yet whom its agents answer."""
    with bound(settings.serve_host, settings.serve_port, "AOS_LORAX_PORT") as taken:
        config = uvicorn.Config(
            serving_app(engine, operator_of(settings)),
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            **wire(),
        )
        listener = _Listener(config)
        serving = asyncio.create_task(listener.serve(sockets=[taken]))
        opened = asyncio.create_task(listener.open.wait())
        try:
            await asyncio.wait({serving, opened}, return_when=asyncio.FIRST_COMPLETED)
            if not listener.started:
                raise Stop(f"HTTP does not begin on {settings.serve_host}:{settings.serve_port}: the log says why.")
            yield f"{address_of(settings.serve_host, taken)}/v1"
        finally:
            opened.cancel()
            listener.should_exit = True
            await serving
