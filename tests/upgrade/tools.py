"""The company's tool. It lies at the same address for the release that stored it and for the test: events name it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 16))
            tool.calls.append((self.headers.get("Idempotency-Key", ""), self.headers.get("Authorization", "")))
            body = b'{"status":"kept"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_said: object) -> None:
            return None

    server = until(f"{PLACE} to be free", lambda: _bound(Handler))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield tool
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
