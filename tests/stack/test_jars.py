"""Java libraries are those that the lock names, or are not used."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from rillfold.embedded.errors import JarError
from rillfold.embedded.jars import LOCK, resolve
from rillfold.embedded.stack import running
from rillfold.embedded.warm import place_of
from rillfold.settings import from_env

WHOLE = b"the bytes that the lock means"
NOWHERE = "http://127.0.0.1:9"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Tests say what matters."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A Maven repository with one artifact: its address and the file."""
    served = tmp_path / "repository" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    served.parent.mkdir(parents=True)
    served.write_bytes(WHOLE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "repository")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "jars.lock"
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    path.write_text(f'[things]\njars = ["org.example:thing:1.0 {sha256} {len(WHOLE)}"]\n')
    return path


def test_a_jar_is_fetched_once_and_then_needs_no_network(
    tmp_path: Path, repository: tuple[str, Path], lock: Path
) -> None:
    first = resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)
    assert [path.read_bytes() for path in first] == [WHOLE]
    assert resolve("things", tmp_path / "cache", repository=NOWHERE, lock=lock) == first


def test_a_damaged_jar_in_the_cache_is_fetched_anew(tmp_path: Path, repository: tuple[str, Path], lock: Path) -> None:
    (path,) = resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)
    path.write_bytes(b"damaged")
    assert resolve("things", tmp_path / "cache", repository=repository[0], lock=lock) == [path]
    assert path.read_bytes() == WHOLE


def test_a_damaged_jar_is_named_when_it_cannot_be_fetched_anew(
    tmp_path: Path, repository: tuple[str, Path], lock: Path
) -> None:
    (path,) = resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)
    path.write_bytes(b"damaged")
    with pytest.raises(JarError, match=r"org\.example:thing:1\.0"):
        resolve("things", tmp_path / "cache", repository=NOWHERE, lock=lock)


def test_a_jar_that_is_not_the_locked_one_is_refused_and_not_kept(
    tmp_path: Path, repository: tuple[str, Path], lock: Path
) -> None:
    repository[1].write_bytes(b"somebody else's bytes")
    with pytest.raises(JarError, match=r"org\.example:thing:1\.0 came with sha256 .* but the lock says .* not used"):
        resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)
    assert list((tmp_path / "cache" / "jars").rglob("*.jar")) == []


def test_a_changed_lock_refuses_what_was_fine_before(tmp_path: Path, repository: tuple[str, Path], lock: Path) -> None:
    resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)
    lock.write_text(lock.read_text().replace(hashlib.sha256(WHOLE).hexdigest(), "0" * 64))
    with pytest.raises(JarError, match="but the lock says 0000"):
        resolve("things", tmp_path / "cache", repository=repository[0], lock=lock)


def test_no_network_and_an_empty_cache_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JarError, match=r"not in the cache .*Connect this machine to the network once"):
        resolve("kafka", tmp_path / "cache", repository=NOWHERE)


def test_a_damaged_start_cache_costs_time_and_nothing_else(tmp_path: Path) -> None:
    here = from_env().cache_dir
    resolve("kafka", here)
    (tmp_path / "jars").symlink_to(here / "jars")
    settings = msgspec.structs.replace(from_env(), cache_dir=tmp_path)
    damaged = place_of(resolve("kafka", tmp_path, repository=NOWHERE), tmp_path)
    damaged.parent.mkdir()
    damaged.write_bytes(b"damaged")
    with running(tmp_path / "data", postgres=False, settings=settings) as endpoints:
        assert endpoints.bootstrap_servers
    assert "aot" in (tmp_path / "data" / "logs" / "kafka.out").read_text()


def test_the_lock_names_no_host_and_a_hash_for_each_jar() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    jars = [line for line in text.splitlines() if line.startswith("    ")]
    assert len(jars) > 80
    assert all(len(line.split()[1]) == 64 for line in jars)
