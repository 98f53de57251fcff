"""The end of a door: who is inside is served, nobody else comes in."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rillfold.v1.errors import error

AGAIN = "5"
"""Seconds until another process answers here, or elsewhere."""
LOOK_SECONDS = 0.05


class Drain:
    """Questions under way, and whether more are let in."""

    def __init__(self) -> None:
        self.open = 0
        self.begun = False

    def begin(self) -> None:
        """Safe in a signal's handler."""
        self.begun = True

    async def ended(self, seconds: float) -> bool:
        """Whether everybody was served in that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.open:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)
        return not self.open

    def door(self, app: ASGIApp) -> ASGIApp:
        async def entered(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] == "/health":
                return await app(scope, receive, send)
            if self.begun:
                return await _ends(scope, receive, send)
            self.open += 1
            try:
                await self._served(app, scope, receive, send)
            finally:
                self.open -= 1

        return entered

    async def _served(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Who is cut off in the end, and has no word of an answer yet, is told the same as who is not let in."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sent)
        except asyncio.CancelledError:
            if begun or not self.begun:
                raise
            await _ends(scope, receive, send)


async def _ends(scope: Scope, receive: Receive, send: Send) -> None:
    told = "This process ends and takes nothing more in; ask again."
    await error(503, told, "engine_stopped", headers={"Retry-After": AGAIN, "Connection": "close"})(
        scope, receive, send
    )
