"""Where a worker keeps its copy of one changelog partition: RocksDB, or memory. Both keep the same contract."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS
from pathlib import Path
from typing import Protocol, cast

from rocksdict import BlockBasedOptions, DBCompressionType, MemtableFactory, Options, Rdict, WriteBatch, WriteOptions

from streams.errors import DirectoryInUse, StoreDamaged, StoreFailed

log = logging.getLogger(__name__)

# Kept beside the rows so that one write moves both. Sorts before every key of the changelog.
POSITION = b"\x00\x00position"
FIRST_KEY = b"\x00\x01"
DAMAGED = "DAMAGED"
# Whatever RocksDB says of its lock, it names the file. "lock" alone also stands in "block checksum mismatch".
LOCKED = "/LOCK"
WORLD = tuple(map(os.strerror, (EMFILE, ENFILE, ENOSPC, EDQUOT, EACCES, EPERM, EROFS, ENOMEM)))
"""What the machine says, in RocksDB's words too: nothing of it is about what stands in the files."""
FOLLOWED_FILES = 16
"""So many files of 8 MiB and less a store that is being filled leaves as they are."""

Pairs = Iterable[tuple[bytes, bytes | None]]


class Store(Protocol):
    """A prefix of a changelog partition, as a map. After a crash it is some prefix, never a torn one."""

    def position(self) -> int | None:
        """The last changelog offset that is in here."""
        ...

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]: ...

    def write(self, pairs: Pairs, position: int | None) -> None:
        """All or nothing. A value of None removes the key."""
        ...

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In the order of the keys."""
        ...

    def filled(self) -> None:
        """It holds what its changelog held. From now on a crash loses nothing, and reads are quick."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """Lost with the process: the changelog gives it back."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._position: int | None = None

    def position(self) -> int | None:
        return self._position

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return [self._rows.get(key) for key in keys]

    def write(self, pairs: Pairs, position: int | None) -> None:
        for key, value in pairs:
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        if position is not None:
            self._position = position

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows: Mapping[bytes, bytes] = dict(self._rows)
        return ((key, rows[key]) for key in sorted(rows) if key.startswith(prefix))

    def filled(self) -> None:
        return None

    def close(self) -> None:
        return None


class RocksStore:
    """One directory, one writer. The write-ahead log makes a killed process lose nothing.

    An empty one is filled without that log, into a memory table that is sorted only when it is written out: a crash
    then leaves a shorter prefix, and the changelog has the rest.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        fresh = not path.exists()
        self._db = _open(path, _filling_options() if fresh else _options())
        self._write = WriteOptions()
        try:
            self._position = self._read_position()
        except Exception:
            self._db.close()
            raise
        self._filling = self._position is None
        if self._filling:
            if not fresh:
                self._reopen(_filling_options())
            self._write.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, in truth

    def position(self) -> int | None:
        return self._position

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        with self._intact():
            return cast(Sequence[bytes | None], self._db.get(list(keys)))

    def write(self, pairs: Pairs, position: int | None) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in pairs:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if position is not None:
            batch.put(POSITION, position.to_bytes(8, "big"))
            self._position = position
        with self._intact():
            self._db.write(batch, self._write)

    def filled(self) -> None:
        if self._filling:
            self._db.flush()
            self._reopen(_options())
            self._write = WriteOptions()
            self._filling = False

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        found = self._db.iter()
        found.seek(prefix or FIRST_KEY)
        while found.valid():
            key = found.key()
            if not key.startswith(prefix):
                return
            yield key, found.value()
            found.next()
        # A damaged block looks like the end.
        with self._intact():
            found.status()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _intact(self) -> Iterator[None]:
        """Where a checksum is wrong, whoever opens this next puts it aside."""
        try:
            yield
        except Exception as error:
            if "Corruption" not in str(error):
                raise StoreFailed(self._path, error) from error
            (self._path / DAMAGED).touch()
            raise StoreDamaged(self._path, error) from error

    def _reopen(self, options: Options) -> None:
        self._db.close()
        with self._intact():
            self._db = _open(self._path, options)

    def _read_position(self) -> int | None:
        value = cast(bytes | None, self._db.get(POSITION))
        return None if value is None else int.from_bytes(value, "big")


class Stores(Protocol):
    """Where a worker finds the store of a changelog partition."""

    def open(self, changelog: str, partition: int) -> Store: ...

    def discard(self, changelog: str, partition: int) -> None:
        """Forget a closed store, so that it is restored from nothing."""
        ...


class RocksStores:
    """One directory a worker. RocksDB's own lock refuses a second process."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, changelog: str, partition: int) -> Store:
        path = self._root / changelog / str(partition)
        try:
            if (path / DAMAGED).exists():
                raise StoreDamaged(path, "a checksum was wrong when it was read")
            return RocksStore(path)
        except Exception as error:
            if not path.exists() or any(said in str(error) for said in WORLD):
                raise StoreFailed(path, error) from error
            if LOCKED in str(error):
                raise DirectoryInUse(path) from error
            # The changelog has it all. What is there is kept for whoever wants to know why.
            log.warning("%s is damaged (%s): put aside, rows are read from the changelog again", path, error)
            self.discard(changelog, partition)
            return RocksStore(path)

    def discard(self, changelog: str, partition: int) -> None:
        path = self._root / changelog / str(partition)
        aside = path.with_name(f"{path.name}.discarded")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def _open(path: Path, options: Options) -> Rdict:
    """Unless it is told twice, RocksDB takes an old store's rows with the options that they were written with."""
    return Rdict(str(path), options, column_families={"default": options})


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    # A fold asks for many keys that were never seen: a filter answers without a search.
    tables = BlockBasedOptions()
    tables.set_bloom_filter(10, block_based=False)
    options.set_block_based_table_factory(tables)
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_memtable_whole_key_filtering(True)
    return options


def _filling_options() -> Options:
    options = _options()
    options.set_memtable_factory(MemtableFactory.vector())
    options.set_memtable_prefix_bloom_ratio(0.0)
    options.set_allow_concurrent_memtable_write(False)
    # Small: what is read is written out while more is read.
    options.set_write_buffer_size(8 << 20)
    options.set_max_write_buffer_number(4)
    # A restore rarely gets that far. A copy that follows another worker's rows for weeks would grow by all that is
    # written.
    options.set_level_zero_file_num_compaction_trigger(FOLLOWED_FILES)
    options.set_level_zero_slowdown_writes_trigger(4 * FOLLOWED_FILES)
    options.set_level_zero_stop_writes_trigger(8 * FOLLOWED_FILES)
    return options
