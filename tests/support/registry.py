"""A schema registry on a free port, as Confluent's REST API describes it: ids, subjects, compatibility, error codes.

`fault` makes it fail as registries and the proxies before them do; `together` lets so many questions go on at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from schemas.codec.compat import incompatibilities

FAULTS = {
    "503": (503, {"error_code": 50302, "message": "Leader not known"}),
    "500": (500, {"error_code": 50001, "message": "Error in the backend data store"}),
    "proxy 404": (404, None),
    "401": (401, {"error_code": 401, "message": "Unauthorized"}),
}


class LocalRegistry(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas: dict[int, str] = {}
        self.subjects: dict[str, list[int]] = {}
        self.fault: str | None = None
        self.together: Barrier | None = None
        self.asked: list[str] = []
        self.lists, self.pages = True, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema: str) -> int:
        for number, known in self.schemas.items():
            if known == schema:
                return number
        self.schemas[len(self.schemas) + 1] = schema
        return len(self.schemas)


class _Handler(BaseHTTPRequestHandler):
    server: LocalRegistry

    def do_GET(self) -> None:
        if self.server.together:
            self.server.together.wait(30)
        match self._path():
            case ["schemas", "ids", number] if int(number) in self.server.schemas:
                self._answer(200, {"schema": self.server.schemas[int(number)]})
            case ["schemas", "ids", number]:
                self._answer(404, {"error_code": 40403, "message": f"Schema {number} not found"})
            case ["schemas"] if self.server.lists:
                self._answer(200, self._listed())
            case ["subjects"]:
                self._answer(200, sorted(self.server.subjects))
            case _:
                self._answer(404, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
        match self._path():
            case ["subjects", subject, "versions"]:
                older = [self.server.schemas[number] for number in self.server.subjects.get(subject, [])]
                reasons = [r for o in older for r in incompatibilities(json.loads(text), json.loads(o))]
                if reasons:
                    return self._answer(409, {"error_code": 409, "message": f"incompatible: {reasons}"})
                number = self.server.add(text)
                self.server.subjects.setdefault(subject, []).append(number)
                return self._answer(200, {"id": number})
            case _:
                return self._answer(404, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def _listed(self) -> list[dict[str, Any]]:
        """Each under a subject of its own; some registries know no pages."""
        asked = parse_qs(urlsplit(self.path).query)
        offset, limit = int(asked["offset"][0]), int(asked["limit"][0])
        all_ = [
            {"subject": f"s{number}", "version": 1, "id": number, "schema": text}
            for number, text in sorted(self.server.schemas.items())
        ]
        return all_[offset : offset + limit] if self.server.pages else all_

    def _path(self) -> list[str]:
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.server.asked.append("/".join(path))
        return ["fault"] if self.server.fault else path

    def _answer(self, status: int, body: Any) -> None:
        if self.server.fault:
            status, body = FAULTS[self.server.fault]
        content = b"<html>not here</html>" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def local_registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
