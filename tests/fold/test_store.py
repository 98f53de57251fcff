"""What every store keeps: RocksDB and memory behave alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.errors import DirectoryInUse, StoreDamaged
from streams.state.recent import Recent, Room
from streams.state.store import FOLLOWED_FILES, MemoryStore, RocksStore, RocksStores, Store


@pytest.fixture(params=["memory", "rocksdb", "recent"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "rows")
    if request.param == "recent":
        made = Recent(made, Room(1_000))
    yield made
    made.close()


def test_an_empty_store_has_no_position_and_no_rows(store: Store):
    assert store.position() is None
    assert store.get([b"acme"]) == [None]
    assert list(store.scan()) == []


def test_a_write_moves_rows_and_position_together(store: Store):
    store.write([(b"acme/b", b"2"), (b"acme/a", b"1"), (b"\x00marker/t/0", b"m")], 41)
    assert store.position() == 41
    assert store.get([b"acme/a", b"nobody", b"acme/b"]) == [b"1", None, b"2"]
    assert list(store.scan(b"acme/")) == [(b"acme/a", b"1"), (b"acme/b", b"2")]
    assert [key for key, _ in store.scan()] == [b"\x00marker/t/0", b"acme/a", b"acme/b"]


def test_the_last_of_two_values_wins_and_none_removes(store: Store):
    store.write([(b"a", b"1"), (b"a", b"2"), (b"b", b"1")], 1)
    store.write([(b"b", None), (b"never", None)], None)
    assert store.get([b"a", b"b"]) == [b"2", None]
    assert store.position() == 1


def test_a_scan_stops_at_the_end_of_its_prefix(store: Store):
    store.write([(b"acme/1", b""), (b"acmf/1", b""), (b"acm", b"")], 0)
    assert [key for key, _ in store.scan(b"acme")] == [b"acme/1"]


def test_filling_changes_nothing_of_what_is_in_there(store: Store):
    store.write([(b"b", b"1"), (b"a", b"1")], 1)
    store.write([(b"b", b"2")], 2)
    store.filled()
    assert (store.position(), list(store.scan())) == (2, [(b"a", b"1"), (b"b", b"2")])
    store.write([(b"c", b"3")], 3)
    store.filled()
    assert store.get([b"a", b"b", b"c"]) == [b"1", b"2", b"3"]


def test_a_copy_that_only_ever_follows_does_not_grow_by_every_row_that_is_written(tmp_path: Path):
    store, dice = RocksStore(tmp_path / "rows"), random.Random(1)
    for position in range(300):
        store.write([(b"acme/%d" % row, dice.randbytes(1000)) for row in range(1000)], position)
    end = time.monotonic() + 20  # it is compacted in threads of RocksDB's own, and nobody is told when
    while len(files := list((tmp_path / "rows").glob("*.sst"))) > FOLLOWED_FILES:
        assert time.monotonic() < end, files
        time.sleep(0.1)
    store.close()


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[], RocksStores]:
    return lambda: RocksStores(tmp_path)


def test_what_was_written_is_there_when_it_is_opened_again(stores: Callable[[], RocksStores]):
    first = stores().open("changelog", 3)
    first.write([(b"a", b"1")], 7)
    first.close()
    again = stores().open("changelog", 3)
    assert (again.position(), again.get([b"a"])) == (7, [b"1"])
    again.close()


def test_a_damaged_store_is_put_aside_and_begins_empty(stores: Callable[[], RocksStores], tmp_path: Path):
    first = stores().open("changelog", 0)
    first.write([(b"a", b"1")], 7)
    first.close()
    (tmp_path / "changelog" / "0" / "CURRENT").write_bytes(b"nonsense\n")
    again = stores().open("changelog", 0)
    assert again.position() is None
    assert (tmp_path / "changelog" / "0.discarded").is_dir()
    again.close()


def damaged(stores: Callable[[], RocksStores], path: Path, at: float) -> None:
    """One byte of the first table file is another."""
    first = stores().open("changelog", 0)
    for n in range(200):
        rows = [(b"acme/%06d" % (100 * n + m), random.Random(100 * n + m).randbytes(300)) for m in range(100)]
        first.write([*rows, (b"\x00marker/t/0", b"m%d" % n)], n)
    first.close()
    file = sorted(path.glob("changelog/0/*.sst"))[0]
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 0x55
    file.write_bytes(content)


@pytest.mark.parametrize("at", [0.0001, 0.3, 0.6])
def test_a_wrong_checksum_ends_a_read_and_the_next_start_begins_empty(
    stores: Callable[[], RocksStores], tmp_path: Path, at: float, caplog: pytest.LogCaptureFixture
):
    """Not "in use", though RocksDB says "block checksum mismatch"; and never fewer rows or markers in silence."""
    damaged(stores, tmp_path, at)
    opened = stores().open("changelog", 0)
    try:
        noticed = opened.position() is None
        list(opened.scan())
    except StoreDamaged:
        noticed = True
    opened.close()
    assert noticed
    again = stores().open("changelog", 0)
    assert again.position() is None
    assert "is damaged" in caplog.text
    again.close()


def test_a_wrong_checksum_is_noticed_where_one_row_is_read(stores: Callable[[], RocksStores], tmp_path: Path):
    damaged(stores, tmp_path, 0.3)
    opened = stores().open("changelog", 0)
    with pytest.raises(StoreDamaged):
        opened.get([b"acme/%06d" % n for n in range(20_000)])
    opened.close()


def test_a_second_worker_on_the_same_directory_is_refused_by_name(stores: Callable[[], RocksStores], tmp_path: Path):
    first = stores().open("changelog", 0)
    with pytest.raises(DirectoryInUse, match=str(tmp_path)):
        stores().open("changelog", 0)
    first.close()


@pytest.mark.parametrize("found_there", ["nothing", "an empty store"])
def test_an_empty_store_is_filled_into_a_table_that_sorts_later(tmp_path: Path, found_there: str):
    """RocksDB keeps the options that a store was made with, unless it is told twice."""
    if found_there == "an empty store":
        RocksStore(tmp_path / "rows").close()
    store = RocksStore(tmp_path / "rows")
    assert "VectorRepFactory" in options_in_force(tmp_path / "rows")
    store.write([(b"a", b"1")], 1)
    store.filled()
    assert "SkipListFactory" in options_in_force(tmp_path / "rows")
    store.close()
    assert RocksStore(tmp_path / "rows").get([b"a"]) == [b"1"]


def options_in_force(store: Path) -> str:
    newest = max(store.glob("OPTIONS-*"), key=lambda file: int(file.name.rpartition("-")[2]))
    return next(line for line in newest.read_text().splitlines() if "memtable_factory" in line)
