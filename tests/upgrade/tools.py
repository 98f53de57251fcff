"""The company's tool. It lies at the same address for the release that stored it and for the test: events name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.tool import answering, at_work
from tests.upgrade.release import until

# All of 127.0.0.0/8 is this machine; nobody else's server is there, and no free port is taken from this range.
PLACE = ("127.4.63.1", 18_463)
URL = f"http://{PLACE[0]}:{PLACE[1]}/reserve"
TOKEN = "made-up-for-the-stored-folder"


class Tool:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Idempotency key and credential of each request."""


def _bound(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer | None:
    """Another run of the suite on this machine may be using the place."""
    try:
        return ThreadingHTTPServer(PLACE, handler)
    except OSError:
        return None


@contextmanager
def tool_server() -> Iterator[Tool]:
    tool = Tool()

    def answer(request: BaseHTTPRequestHandler) -> bytes:
        tool.calls.append((request.headers.get("Idempotency-Key", ""), request.headers.get("Authorization", "")))
        return b'{"status":"kept"}'

    with at_work(until(f"{PLACE} to be free", lambda: _bound(answering(answer)))):
        yield tool
