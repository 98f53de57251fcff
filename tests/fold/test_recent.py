"""What is remembered is what is stored, and it is not remembered for ever."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from random import Random
from weakref import ref

import pytest

from streams.state.recent import ROW_OVERHEAD, RecentStores
from streams.state.store import MemoryStore, Store


class Asked(MemoryStore):
    """Says what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        self.asked += keys
        return super().get(keys)


class Opened:
    """Keeps the inner stores at hand."""

    def __init__(self) -> None:
        self.inner: list[Asked] = []

    def open(self, changelog: str, partition: int) -> Store:
        self.inner.append(Asked())
        return self.inner[-1]

    def discard(self, changelog: str, partition: int) -> None:
        return None


def opened(limit: int, count: int = 1) -> tuple[list[Store], list[Asked]]:
    opened = Opened()
    stores = RecentStores(opened, limit)
    made = [stores.open("changelog", n) for n in range(count)]
    for store in made:
        store.filled()
    return made, opened.inner


def test_what_was_just_written_is_not_asked_for():
    (store,), (inner,) = opened(1 << 20)
    store.write([(b"a", b"1"), (b"b", None)], 1)
    assert store.get([b"a", b"b"]) == [b"1", None]
    assert inner.asked == []
    assert store.get([b"c", b"a", b"d"]) == [None, b"1", None]
    assert inner.asked == [b"c", b"d"]


def test_what_is_filled_in_is_not_remembered():
    opened = Opened()
    store = RecentStores(opened, 1 << 20).open("changelog", 0)
    store.write([(b"a", b"1")], 1)
    store.filled()
    store.get([b"a"])
    assert opened.inner[0].asked == [b"a"]


def test_all_stores_share_the_room_and_the_oldest_rows_go_first():
    (busy, quiet), (_, inner) = opened(20 * ROW_OVERHEAD, count=2)
    quiet.write([(b"q", b"1")], 1)
    for n in range(8):
        busy.write([(b"%d" % n, b"")], n)
    assert quiet.get([b"q"]) == [b"1"] and inner.asked == []
    for n in range(20):
        busy.write([(b"%d" % n, b"")], n)
    assert quiet.get([b"q"]) == [b"1"] and inner.asked == [b"q"]


def test_a_closed_store_leaves_the_room():
    """What it remembered is not kept in memory by those that live on."""
    (first, second), _ = opened(4 * ROW_OVERHEAD, count=2)
    first.write([(b"a", b"1")], 1)
    first.close()
    closed = ref(first)
    del first
    gc.collect()
    for n in range(9):
        second.write([(b"%d" % n, b"")], n)
    assert closed() is None


@pytest.mark.parametrize("limit", [0, 3 * ROW_OVERHEAD, 40 * ROW_OVERHEAD])
def test_it_always_answers_what_the_store_would(limit: int):
    chance = Random(limit)
    (store,), (inner,) = opened(limit)
    for n in range(2_000):
        keys = [b"k%d" % chance.randrange(60) for _ in range(chance.randrange(1, 9))]
        if chance.random() < 0.5:
            store.write([(key, None if chance.random() < 0.2 else b"%d" % n) for key in keys], n)
        assert store.get(keys) == MemoryStore.get(inner, keys)
