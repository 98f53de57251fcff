"""Both companies' API on loopback. It answers at once; what it says of acme is a secret of acme's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.tool import answering, at_work


class ToolServer:
    def __init__(self) -> None:
        self.tokens: list[str] = []
        """Every credential that came, in order."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), answering(self._answer))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _answer(self, request: BaseHTTPRequestHandler) -> bytes:
        self.tokens.append(request.headers.get("Authorization", ""))
        return json.dumps({"path": request.path}).encode()


@contextmanager
def tool_server() -> Iterator[ToolServer]:
    tool = ToolServer()
    with at_work(tool.server):
        yield tool
