"""What a connection may cost before there is a request: bounded heads, in bounded time, of a bounded number."""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from rillfold.http.connections import FULL, Connections

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 20.0
"""From the opening of a connection, or from the end of an answer, to the end of the next head. Longer than clients keep
a connection that they do not use (5 s, some 15), so that they let it go first, and not while they send on it."""
READ_SECONDS = 60.0
"""A client that reads nothing of an answer for so long is not waited for."""
LOOK_SECONDS = 0.25
"""So often is an answer looked at that lies here: is it read on?"""
CONNECTIONS = 1_000
SETTLE = "settle"
"""The name under which a request finds whom to tell that it is the client's turn now."""


class Wire(H11Protocol):
    """h11 as uvicorn has it, with a clock for whatever is the client's turn, and a place among a bounded number."""

    def __init__(self, among: Connections[Wire], **given: Any) -> None:
        super().__init__(**given)
        self.app_state = {**self.app_state, SETTLE: self._settle}
        self._among = among
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._among.enter(self, self.client[0] if self.client else ""):
            self._settle()
        else:
            transport.write(FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.leave(self)
        self._nothing_is_late()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    def _settle(self) -> None:
        """Whose turn is it? Ours from the end of a head until the answer ends; not while it lies unread, nor while
        the rest of a body runs out that is answered already."""
        running_out = self._asked() and self.cycle.response_started and self.cycle.more_body
        if self._asked() and not self.flow.write_paused and not running_out:
            self._among.works(self)
            self._nothing_is_late()
            return
        self._among.waits(self)
        if self._late is None:
            self._watch()

    def _watch(self) -> None:
        """No event tells that a client reads on: that is looked for."""
        left = (READ_SECONDS if self._asked() or self.unread() else HEAD_SECONDS) - self._among.waited(self)
        if left > 0:
            self._late = self.loop.call_later(min(left, LOOK_SECONDS) if self.unread() else left, self._watch)
        else:
            self.transport.abort()

    def _asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def unread(self) -> int:
        """What was answered and is still here."""
        return self.transport.get_write_buffer_size()

    def _nothing_is_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def wire(connections: int | None = None) -> dict[str, Any]:
    """How every server of ours is configured; each has its own places."""
    among = Connections[Wire](connections or _places(), lambda each: each.transport.abort(), Wire.unread)
    return {
        "http": partial(Wire, among),
        "ws": "none",
        "h11_max_incomplete_event_size": HEAD_BYTES,
        "server_header": False,
        "proxy_headers": False,
        "access_log": False,
        "timeout_keep_alive": HEAD_SECONDS,
    }


def _places() -> int:
    """Connections never take the files that the process needs for its own work."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, files // 2)
