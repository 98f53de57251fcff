"""A worker's HTTP listener: alive, ready, figures, its own rows. In threads, so that it answers when work stands."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from socket import SHUT_RDWR, socket
from socketserver import TCPServer, ThreadingMixIn
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from rillfold.http.connections import FULL, Connections
from rillfold.http.operator import Operator
from schemas.errors import Stop

if TYPE_CHECKING:
    from streams.owner.glance import Proof  # Faust: only who folds pays for it

IDLE_SECONDS = 30.0
"""A connection that asks nothing, or reads nothing, for so long is closed."""
ANSWER_SECONDS = 60.0
"""No answer is longer on its way."""
OPEN = ("health", "ready")
CONNECTIONS = 100
"""Each has a thread."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")

FindRow = Callable[[str, str], "Proof | str | None"]


class HttpReply(NamedTuple):
    status: int
    body: bytes
    kind: str = "application/json"


class Answers(NamedTuple):
    """What a worker has to say. `stands` is None when it is ready, and else why it is not."""

    stands: Callable[[], str | None]
    registry: CollectorRegistry
    operator: Operator
    row: FindRow | None = None

    def to(self, path: str, host: str | None, authorization: str | None) -> HttpReply:
        """Whether it lives and is ready is for everybody; figures and rows under a name of ours; rows by the token."""
        open_to_all = path.partition("?")[0].strip("/") in OPEN
        refused = None if open_to_all else self.operator.refuses(host, authorization)
        if refused is not None and (refused.status != 401 or path.startswith("/rows")):
            return _error(refused.status, refused.code, refused.message)
        match path.partition("?")[0].strip("/").split("/", 2):
            case ["health"]:
                return _json(200, {"alive": True})
            case ["ready"]:
                why = self.stands()
                return _json(200 if why is None else 503, {"ready": why is None, "why": why})
            case ["metrics"]:
                return HttpReply(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
            case ["rows", projection, key] if self.row is not None:
                return _row(self.row, projection, unquote(key))
        return _error(
            404, "not_found", "There is /health, /ready, /metrics and, in a fold worker, /rows/PROJECTION/KEY."
        )


def _row(find: FindRow, projection: str, key: str) -> HttpReply:
    try:
        found = find(projection, key)
    except Exception as error:
        return _error(503, "not_now", f"The row cannot be read now: {error}")
    if found == "elsewhere":
        return _error(503, "restoring", "This worker is restoring its rows. Ask again, or ask another.")
    if found is None or isinstance(found, str):
        return _error(404, "not_found", f"No row {key!r} of {projection!r} in the partitions of this worker.")
    return HttpReply(200, msgspec.json.encode(found._asdict()))


def _json(status: int, content: Any) -> HttpReply:
    return HttpReply(status, json.dumps(content).encode())


def _error(status: int, code: str, message: str) -> HttpReply:
    return _json(status, {"error": {"code": code, "message": message}})


class Unread:
    """What was answered on a connection and is still here."""

    def __init__(self) -> None:
        self._of: dict[socket, int] = {}

    def on(self, connection: socket) -> int:
        return self._of.get(connection, 0)

    def is_now(self, connection: socket, unread: int) -> None:
        self._of[connection] = unread
        if not unread:
            del self._of[connection]


class _Out(BufferedIOBase):
    """Gathers an answer and sends it as one. From then on it is the client's turn: it may leave it unread."""

    def __init__(self, connection: socket, connections: Connections[socket], unread: Unread) -> None:
        self._connection, self._connections, self._unread = connection, connections, unread
        self._gathered = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._gathered += data
        return len(data)

    def flush(self) -> None:
        rest, self._gathered = memoryview(self._gathered), bytearray()
        until = monotonic() + ANSWER_SECONDS
        try:
            while rest and monotonic() < until:
                self._unread.is_now(self._connection, len(rest))
                self._connections.waits(self._connection)
                rest = rest[self._connection.send(rest) :]
        finally:
            self._unread.is_now(self._connection, 0)
        if rest:
            raise TimeoutError


def _handler(answers: Answers, connections: Connections[socket], unread: Unread) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.wfile = _Out(self.connection, connections, unread)

        def do_GET(self) -> None:
            connections.works(self.connection)
            reply = answers.to(self.path, self.headers.get("Host"), self.headers.get("Authorization"))
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()

        def log_message(self, *args: object) -> None:
            """No access log."""

    return Handler


def _end(connection: socket) -> None:
    """Its thread, which waits for it, sees the end and closes it."""
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    # A full queue makes a client wait a second before it knocks again.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        unread = Unread()
        self._connections = Connections[socket](CONNECTIONS, _end, unread.on)
        super().__init__(address, _handler(answers, self._connections, unread))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.enter(request, client_address[0]):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.sendall(FULL)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        self._connections.leave(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """A head that comes byte by byte ends too."""
        self._connections.end_overdue(IDLE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is no news."""


@contextmanager
def listening(answers: Answers, host: str, port: int, told: Path) -> Iterator[str]:
    """Port 0 takes any free one. `told` says which, as long as this listens."""
    if host not in LOOPBACK:
        answers = answers._replace(row=None)  # a token does not travel in the clear between machines
    try:
        server = _Server((host, port), answers)
    except OSError as error:
        raise Stop(
            f"Port {port} on {host} is not to be had ({error}): set RILLFOLD_WORKER_PORT to 0 or another."
        ) from error
    url = f"http://{host}:{server.server_address[1]}"
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(json.dumps({"url": url}))
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    try:
        yield url
    finally:
        told.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()
