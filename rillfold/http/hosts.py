"""For whom a request says it came. A page in a browser reaches loopback under its own name: that is no name here."""

import ipaddress
import socket
from urllib.parse import urlsplit


def known_hosts(*configured: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in ("localhost", socket.gethostname(), *configured) if name.strip())


def is_known(host: str | None, known: frozenset[str]) -> bool:
    """An address is always known: only a name can be made to point elsewhere."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return host is not None and name is not None and (name in known or _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
