"""A door before a Postgres that speaks no TLS: whoever comes must begin it, as `ssl = on` and `hostssl` have it."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rillfold.embedded.ports import HOST

WANTS_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""libpq's first word."""


class TlsDoor(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, behind: tuple[str, int], shown: Path) -> None:
        """`shown`: key and certificate."""
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(shown)
        self.behind, self.let_in, self.turned_away = behind, 0, 0
        super().__init__((HOST, 0), _Guest)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Guest(socketserver.BaseRequestHandler):
    server: TlsDoor

    def handle(self) -> None:
        if self.request.recv(len(WANTS_TLS)) != WANTS_TLS:
            self.server.turned_away += 1
            return
        self.request.sendall(b"S")
        try:
            guest = self.server.tls.wrap_socket(self.request, server_side=True)
        except (ssl.SSLError, OSError):
            self.server.turned_away += 1
            return
        self.server.let_in += 1
        with guest, socket.create_connection(self.server.behind) as within:
            answers = threading.Thread(target=_pass_on, args=(within, guest), daemon=True)
            answers.start()
            _pass_on(guest, within)
            answers.join()


def _pass_on(whence: socket.socket, whither: socket.socket) -> None:
    with suppress(OSError):
        while some := whence.recv(1 << 16):
            whither.sendall(some)
    with suppress(OSError):
        whither.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_door(behind: tuple[str, int], shown: Path) -> Iterator[TlsDoor]:
    with TlsDoor(behind, shown) as door:
        opened = threading.Thread(target=door.serve_forever, daemon=True)
        opened.start()
        try:
            yield door
        finally:
            door.shutdown()
            opened.join()
