"""A port of this process, taken before anybody is told of it: whoever cannot have it hears which variable to set."""

from __future__ import annotations

import socket

from schemas.errors import Stop

BACKLOG = 128


def bound(host: str, port: int, variable: str) -> socket.socket:
    """Raises `Stop` where the port is taken, or the host is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Stop(
            f"{variable}={port}: not to be had on {host} ({error.strerror or error}). "
            f"Set {variable} to 0 or another port; the host must be an address of this machine."
        ) from error


def address_of(host: str, taken: socket.socket) -> str:
    """As a client writes it."""
    written = f"[{host}]" if ":" in host else host
    return f"http://{written}:{taken.getsockname()[1]}"
