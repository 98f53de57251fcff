"""Who stays where there are more connections than places: requests under way, and of those that wait the newest."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address
from itertools import takewhile
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)

_FULL = b'{"error":{"code":"full","message":"Too many requests are under way: come again later.","detail":null}}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)
"""The answer to a connection for which no other gives way."""


class Connections(Generic[C]):
    """Those of one listener. One waits while it is the client's turn: to ask, to send on, or to read.

    A newcomer always has a place unless every connection has a request under way: the peer with the most connections
    that wait gives one up, the one that waits longest. So whoever opens many shuts the door for nobody.
    """

    def __init__(self, places: int, end: Callable[[C], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._places, self._end, self._clock = places, end, clock
        self._lock = threading.Lock()
        self._peers: dict[C, str] = {}
        self._waiting: dict[str, OrderedDict[C, float]] = {}
        """Of each peer, since when: the longest first."""

    def enter(self, connection: C, address: str) -> bool:
        """Whether there is a place. It waits from now on."""
        with self._lock:
            leaving = self._gives_way() if len(self._peers) >= self._places else None
            if leaving is not None:
                self._forget(leaving)
            if len(self._peers) >= self._places:
                return False
            self._peers[connection] = peer_of(address)
            self._wait(connection)
        if leaving is not None:
            self._end(leaving)
        return True

    def works(self, connection: C) -> None:
        """It has a request under way: it never gives way."""
        with self._lock:
            self._wait_no_more(connection)

    def waits(self, connection: C) -> None:
        """Since now, or since earlier if it waited already: bytes that come one by one make nobody new."""
        with self._lock:
            if connection in self._peers:
                self._wait(connection)

    def leave(self, connection: C) -> None:
        with self._lock:
            self._forget(connection)

    def end_overdue(self, seconds: float) -> None:
        """Those that waited for so long."""
        until = self._clock() - seconds
        with self._lock:
            waiting = [takewhile(lambda each: each[1] <= until, of.items()) for of in self._waiting.values()]
            overdue = [connection for of in waiting for connection, _ in of]
            for connection in overdue:
                self._forget(connection)
        for connection in overdue:
            self._end(connection)

    def _gives_way(self) -> C | None:
        most = max(self._waiting.values(), key=len, default=None)
        return None if most is None else next(iter(most))

    def _wait(self, connection: C) -> None:
        self._waiting.setdefault(self._peers[connection], OrderedDict()).setdefault(connection, self._clock())

    def _wait_no_more(self, connection: C) -> None:
        peer = self._peers.get(connection)
        waiting = None if peer is None else self._waiting.get(peer)
        if waiting is not None and peer is not None:
            waiting.pop(connection, None)
            if not waiting:
                del self._waiting[peer]

    def _forget(self, connection: C) -> None:
        self._wait_no_more(connection)
        self._peers.pop(connection, None)


def peer_of(address: str) -> str:
    """Who shares a share: one machine may have all 2^64 addresses of an IPv6 network."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or f"{int(found) >> 64:x}::/64")
