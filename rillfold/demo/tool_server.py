"""The companies' own API, as the demo plays it: strict about tokens, one effect per idempotency key."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from rillfold.demo.data import COMPANIES, reply

BODY_LIMIT = 64 << 10


class Effect(NamedTuple):
    """Something that really happened at the company."""

    company: str
    tool: str
    arguments: Mapping[str, Any]
    key: str


class ToolServer:
    """`effects` is what a company's books would show; `requests` counts every knock at the door."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.effects: list[Effect] = []
        self.requests = 0
        self._tokens = tokens
        self._replies: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.hold = threading.Event()
        """Cleared, it keeps answers back until it is set: the demo kills a worker in the meantime."""
        self.hold.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, company: str, tool: str, token: str, key: str, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            self.requests += 1
        if not key or token != f"Bearer {self._tokens.get(company)}":
            return 401, b'{"error":"a bearer token of this company and an Idempotency-Key are needed"}'
        with self._lock:
            if key not in self._replies:
                arguments = json.loads(body)
                chosen = next(each for each in COMPANIES if each.id == company)
                self._replies[key] = json.dumps(reply(chosen, tool, arguments)).encode()
                self.effects.append(Effect(company, tool, arguments, key))
        self.hold.wait(timeout=30)
        return 200, self._replies[key]

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(server: ToolServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            company, _, tool = self.path.strip("/").partition("/")
            length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
            token, key = self.headers.get("Authorization", ""), self.headers.get("Idempotency-Key", "")
            try:
                status, body = server.answer(company, tool, token, key, self.rfile.read(length))
            except (KeyError, StopIteration, ValueError) as error:
                status, body = 422, json.dumps({"error": repr(error)}).encode()
            with suppress(ConnectionError):  # the caller was killed while it waited
                self._send(status, body)

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_said: object) -> None:
            return None

    return Handler


@contextmanager
def tool_server(tokens: Mapping[str, str]) -> Iterator[ToolServer]:
    server = ToolServer(tokens)
    thread = threading.Thread(target=server.serve, name="tool-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=5)
