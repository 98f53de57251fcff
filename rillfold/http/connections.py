"""Who stays where there are more connections than places: requests under way, then who reads, then the newest."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address
from itertools import takewhile
from typing import Generic, NamedTuple, TypeVar

C = TypeVar("C", bound=Hashable)

_FULL = b'{"error":{"code":"full","message":"Too many requests are under way: come again later.","detail":null}}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)
"""The answer to a connection for which no other gives way."""


class _Turn(NamedTuple):
    """The client's."""

    since: float
    """Its beginning, or when it was last seen to have read on."""
    unread: int


class Connections(Generic[C]):
    """Those of one listener. One waits while it is the client's turn: to ask, to send on, or to read.

    A newcomer always has a place unless every connection has a request under way: the peer with the most connections
    that wait gives one up, the one that waits longest. So whoever opens many shuts the door for nobody. Who has
    something to read gives way after those that have nothing, and who reads on does not wait.
    """

    def __init__(
        self,
        places: int,
        end: Callable[[C], None],
        unread: Callable[[C], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._end, self._unread, self._clock = places, end, unread, clock
        self._lock = threading.Lock()
        self._peers: dict[C, str] = {}
        self._waiting: dict[str, OrderedDict[C, _Turn]] = {}
        """Of each peer: who waits longest first."""

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

    def waited(self, connection: C) -> float:
        """How long it asks nothing and reads nothing; none if it has a request under way."""
        with self._lock:
            waits = connection in self._waiting.get(self._peers.get(connection, ""), ())
            return self._clock() - self._look(connection).since if waits else 0.0

    def leave(self, connection: C) -> None:
        with self._lock:
            self._forget(connection)

    def end_overdue(self, seconds: float) -> None:
        """Those that waited for so long."""
        until = self._clock() - seconds
        with self._lock:
            waiting = [takewhile(lambda each: each[1].since <= until, of.items()) for of in self._waiting.values()]
            long = [connection for of in waiting for connection, _ in of]
            overdue = [connection for connection in long if self._look(connection).since <= until]
            for connection in overdue:
                self._forget(connection)
        for connection in overdue:
            self._end(connection)

    def _gives_way(self) -> C | None:
        most = max(self._waiting.values(), key=len, default=None)
        if most is None:
            return None
        for connection in most:
            if not self._unread(connection):
                return connection
        for connection in list(most):
            self._look(connection)
        return next(iter(most))

    def _wait(self, connection: C) -> None:
        of = self._waiting.setdefault(self._peers[connection], OrderedDict())
        of.setdefault(connection, _Turn(self._clock(), 0))
        self._look(connection)

    def _look(self, connection: C) -> _Turn:
        """Has it read on since the last look? Then its turn begins anew."""
        of, unread = self._waiting[self._peers[connection]], self._unread(connection)
        if unread < of[connection].unread:
            of[connection] = _Turn(self._clock(), unread)
            of.move_to_end(connection)
        else:
            of[connection] = of[connection]._replace(unread=unread)
        return of[connection]

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
