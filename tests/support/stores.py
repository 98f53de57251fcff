"""Stores for a worker that keeps nothing on a disk."""

from __future__ import annotations

from streams.state.store import MemoryStore, Store


class MemoryStores:
    def open(self, changelog: str, partition: int) -> Store:
        return MemoryStore()

    def discard(self, changelog: str, partition: int) -> None:
        return None
