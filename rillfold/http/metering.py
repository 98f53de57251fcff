"""What is counted about requests. Every label is of a closed set: nobody outside can make a new series."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Answers are one company's: no cache keeps them, no page guesses their type.
PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


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
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._count.labels(method, route, str(message["status"])).inc()
                self._time.labels(route).observe(time.perf_counter() - begun)
                message["headers"] = [*message.get("headers", []), *PRIVATE]
            await send(message)

        return await self._app(scope, receive, metered)
