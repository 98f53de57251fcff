"""What a request may cost before anybody looks at it, and what is counted about it afterwards."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rillfold.http.errors import shape

BODY_BYTES = 8 << 20
DRAINED_BYTES = 4 * BODY_BYTES
# Answers are one company's: no cache keeps them, no page guesses their type.
PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class BodyLimit:
    """Refuses by the announced length, and cuts off what was not announced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > BODY_BYTES:
            return await _too_large(scope, receive, send, more=True)
        seen, begun, more = 0, False, True

        async def counted() -> Message:
            nonlocal seen, more
            message = await receive()
            more = message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > BODY_BYTES:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if begun:
                raise
            await _too_large(scope, receive, send, more)


class _TooLarge(Exception):
    pass


async def _too_large(scope: Scope, receive: Receive, send: Send, more: bool) -> None:
    """Lets the client finish within reason: one that is cut off while it sends never reads the answer."""
    drained = 0
    while more and drained < DRAINED_BYTES:
        message = await receive()
        drained += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = shape("too_large", f"A request body has at most {BODY_BYTES} bytes: send several.")
    await JSONResponse(body, 413, headers={"Connection": "close"})(scope, receive, send)


class Metered:
    """Requests by route, method and status, and how long they took. And what every answer's headers say."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ("method", "route", "status")
        self._count = Counter("rillfold_http_requests", "HTTP requests", labels, registry=registry)
        self._time = Histogram("rillfold_http_seconds", "Seconds to the first byte", ("route",), registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = time.perf_counter()

        async def metered(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's template, never the path: its cardinality is a user's choice.
                route = getattr(scope.get("route"), "path", "none")
                self._count.labels(scope["method"], route, str(message["status"])).inc()
                self._time.labels(route).observe(time.perf_counter() - begun)
                message["headers"] = [*message.get("headers", []), *PRIVATE]
            await send(message)

        return await self._app(scope, receive, metered)
