"""Too few open files are the machine's matter: nothing is put aside, and the limit is named before a fold begins."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rillfold.embedded.stack import Endpoints
from schemas.topics import TopicNames
from streams.errors import StoreFailed
from streams.state.store import RocksStores
from tests.support.worker import external

OPEN = Path("/proc/self/fd")


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Files that this process may open beside those that it has open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(each.name) for each in OPEN.iterdir()) + 32, hard))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        for _ in range(more):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("more", [0, 2, 4, 6])
def test_a_store_that_cannot_be_opened_for_want_of_files_stays_where_it_is(more: int, tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open("changelog", 0)
    for position in range(5):
        store.write([(b"acme/%d" % n, b"row" * 300) for n in range(5_000)], position)
    store.filled()
    store.close()
    folder = tmp_path / "changelog"
    with at_most(more), pytest.raises(StoreFailed, match="ulimit -n"):
        stores.open("changelog", 0)
    assert [path.name for path in folder.iterdir()] == ["0"]
    again = stores.open("changelog", 0)
    assert again.position() == 4
    again.close()


def test_a_fold_that_may_not_open_enough_says_so_and_does_not_begin(
    stack: Endpoints, names: TopicNames, topics: None, tmp_path: Path
) -> None:
    environment = os.environ | external(stack.bootstrap_servers, names.prefix, tmp_path)
    line = ["bash", "-c", 'ulimit -n 200; exec "$@"', "fold", sys.executable, "-m", "rillfold", "worker", "fold"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "may have 200 files open, and a fold that holds" in done.stderr
    assert not list(tmp_path.rglob("tables"))
