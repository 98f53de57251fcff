"""An endpoint of the shape that OpenAI's clients know, on this machine, which says what a test has it say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chat(text: str) -> object:
    return {"choices": [{"message": {"content": text}}]}


@contextmanager
def answering(says: Callable[[str], object]) -> Iterator[str]:
    """`says` hears the last message. A text is an answer in words, bytes are the body as it is, all else is JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = says(asked["messages"][-1]["content"])
            told = chat(said) if isinstance(said, str) else said
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(200 if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
