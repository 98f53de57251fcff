"""What a connection may cost before there is a request: bounded heads, in bounded time, of a bounded number."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 15.0
"""From the first byte of a head, or from the opening of a connection that says nothing, to the head's end."""
CONNECTIONS = 1_000
_FULL = b'{"error":{"code":"full","message":"Too many connections: come again later.","detail":null}}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)


class Wire(H11Protocol):
    """h11 as uvicorn has it, with a clock for heads and an end to connections."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.write(FULL)
            transport.close()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._head_is_here()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


WIRE: dict[str, Any] = {
    "http": Wire,
    "ws": "none",
    "h11_max_incomplete_event_size": HEAD_BYTES,
    "server_header": False,
    "proxy_headers": False,
    "access_log": False,
}
"""How every server of ours is configured."""
