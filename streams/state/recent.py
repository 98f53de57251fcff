"""Rows that were written lately, kept in memory before a store: most rows that are folded again are among them.

Two generations: what is written goes into the young one, which becomes the old one when the room is half used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from streams.state.store import Pairs, Store, Stores

# What a row costs beyond its bytes: two objects and its place in a map.
ROW_OVERHEAD = 200
ABSENT = b"\x00absent"
"""Known by identity, not by value."""


class Room:
    """Memory that all stores of a worker share."""

    def __init__(self, limit: int) -> None:
        self._half, self._taken = limit // 2, 0
        self._users: set[Recent] = set()

    def enter(self, user: Recent) -> None:
        self._users.add(user)

    def leave(self, user: Recent) -> None:
        self._users.discard(user)

    def take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._half:
            self._taken = 0
            for user in self._users:
                user.age()


class Recent:
    """A store that remembers. It writes through: what is durable, and when, is the inner store's matter."""

    def __init__(self, store: Store, room: Room) -> None:
        self._store, self._room = store, room
        self._young: dict[bytes, bytes | None] = {}
        self._old: Mapping[bytes, bytes | None] = {}
        self._filled = False
        room.enter(self)

    def position(self) -> int | None:
        return self._store.position()

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Remembers nothing: another thread may ask, and what it read could be older than what was written since."""
        young, old = self._young, self._old
        found = [young[key] if key in young else old.get(key, ABSENT) for key in keys]
        unknown = [key for key, value in zip(keys, found, strict=True) if value is ABSENT]
        if not unknown:
            return found
        stored = iter(self._store.get(unknown))
        return [next(stored) if value is ABSENT else value for value in found]

    def write(self, pairs: Pairs, position: int | None) -> None:
        if not self._filled:
            self._store.write(pairs, position)
            return
        pairs = list(pairs)
        self._store.write(pairs, position)
        self._young.update(pairs)
        self._room.take(sum(len(key) + len(value or b"") + ROW_OVERHEAD for key, value in pairs))

    def age(self) -> None:
        # In this order: whoever reads meanwhile finds a row in one of the two.
        self._old = self._young
        self._young = {}

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(prefix)

    def filled(self) -> None:
        self._store.filled()
        self._filled = True

    def close(self) -> None:
        self._room.leave(self)
        self._store.close()


class RecentStores:
    """Stores that remember, all in one room."""

    def __init__(self, stores: Stores, limit: int) -> None:
        self._stores, self._room = stores, Room(limit)

    def open(self, changelog: str, partition: int) -> Store:
        return Recent(self._stores.open(changelog, partition), self._room)

    def discard(self, changelog: str, partition: int) -> None:
        self._stores.discard(changelog, partition)
