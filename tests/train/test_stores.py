"""What every adapter store promises, a folder or a URL: what is read is what was put, or an error that says why."""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.keys import CARD, PAPERS, PROVENANCE, AdapterKeys
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.remote import RemoteStore
from gpu_workers.adapters.remote_files import RemoteFiles
from gpu_workers.adapters.signature import SIGNATURE, key_id, new_key, private_key
from gpu_workers.adapters.store import MANIFEST, Facts, FolderStore, verify
from gpu_workers.errors import ArtifactMissing, ArtifactRefused, NoSuchStore, NotSigned, StoreAway, StoreTakesNothing
from rillfold.settings import Settings, from_env
from rillfold.wiring import artifact_store
from schemas.errors import Stop
from tests.support.laid import FACTS, lay, matrices
from tests.support.s3 import bucket, owner, s3

__all__ = ["bucket", "s3"]

CARDS = {CARD: b"# acme/support@1\n", PROVENANCE: b"{}\n"}
ONE, OTHER = (private_key(new_key(), "a test") for _ in range(2))


@dataclass(frozen=True)
class Shelf:
    """A store, and its own files as whoever owns the machine that keeps them sees them."""

    make: Callable[[AdapterKeys], AdapterStore]
    files: Any
    root: str
    copies: Path

    @property
    def store(self) -> AdapterStore:
        return self.make(AdapterKeys())

    def holding(self, *known: Any, own: Any = None) -> AdapterStore:
        """Which demands a signature of one of these."""
        keys = {key_id(each.public_key()): each.public_key() for each in known}
        return self.make(AdapterKeys(keys, demanded=True, own=None if own is None else lambda: own))

    def read(self, name: str) -> bytes:
        return bytes(self.files.cat_file(f"{self.root}/{name}"))

    def write(self, name: str, body: bytes) -> None:
        """As somebody else would: and no copy of it is left on this machine."""
        self.files.pipe_file(f"{self.root}/{name}", body)
        shutil.rmtree(self.copies, ignore_errors=True)

    def remove(self, name: str) -> None:
        self.files.rm_file(f"{self.root}/{name}")
        shutil.rmtree(self.copies, ignore_errors=True)


def remote(url: str, copies: Path, keys: AdapterKeys | None = None, silent: float = 20.0) -> RemoteStore:
    return RemoteStore(RemoteFiles(url, (0.0,), (0.0, 0.0), silent), FolderStore(copies), keys)


@pytest.fixture(params=["folder", "memory", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    copies, place = tmp_path / "copies", str(tmp_path / "store")
    if request.param == "folder":
        local = fsspec.filesystem("file", auto_mkdir=True)
        return Shelf(lambda keys: FolderStore(Path(place), keys), local, place, copies)
    if request.param == "s3":
        at = f"{request.getfixturevalue('bucket')}/adapters"
        return Shelf(lambda keys: remote(f"s3://{at}", copies, keys), owner(), at, copies)
    return Shelf(lambda keys: remote(f"memory:/{place}", copies, keys), fsspec.filesystem("memory"), place, copies)


def facts_of(store: AdapterStore, sha256: str) -> Facts:
    return verify(store.place(sha256), sha256)


def test_what_was_put_comes_back(shelf: Shelf, tmp_path: Path) -> None:
    source, store = lay(tmp_path / "made"), shelf.store
    sha256 = store.put(source, FACTS)
    shutil.rmtree(shelf.copies, ignore_errors=True)
    assert facts_of(store, sha256) == FACTS
    for name in (TENSORS, CONFIG):
        assert (store.place(sha256) / name).read_bytes() == (source / name).read_bytes()
    assert store.uri(sha256).endswith(f"/sha256/{sha256}") and "://" in store.uri(sha256)
    assert store.has_room()


def test_the_same_adapter_has_the_same_name_and_another_has_another(shelf: Shelf, tmp_path: Path) -> None:
    first = shelf.store.put(lay(tmp_path / "a"), FACTS)
    assert shelf.store.put(lay(tmp_path / "b"), FACTS) == first
    other = {name: tensor * 2 for name, tensor in matrices().items()}
    assert shelf.store.put(lay(tmp_path / "c", other), FACTS) != first


def test_the_company_is_part_of_the_name(shelf: Shelf, tmp_path: Path) -> None:
    stolen = Facts(company="globex", base_model="tiny", base_sha256="0" * 64, tools_in_prompt=False)
    assert shelf.store.put(lay(tmp_path / "a"), FACTS) != shelf.store.put(lay(tmp_path / "a"), stolen)


def test_what_is_not_there_is_named(shelf: Shelf) -> None:
    with pytest.raises(ArtifactMissing, match="f" * 64):
        shelf.store.place("f" * 64)


FORGED = (
    "",
    ".",
    "..",
    "../../x",
    "/",
    "/etc",
    "~",
    "f" * 63,
    "f" * 65,
    "F" * 64,
    "f" * 63 + "\n",
    "\0" * 64,
    "é" * 64,
    "f" * 62 + "/x",
)


@pytest.mark.parametrize("word", FORGED)
def test_no_word_of_the_log_is_a_path(shelf: Shelf, word: str) -> None:
    """The hash of an adapter.ready comes from the log, where anybody may have written it."""
    store = shelf.store
    for asked in (store.place, store.uri, store.papers, store.files, store.manifest):
        with pytest.raises(ArtifactRefused, match="not a sha256"):
            asked(word)


@pytest.mark.parametrize("name", [TENSORS, CONFIG])
def test_what_lacks_a_file_is_refused_before_anything_is_read(shelf: Shelf, tmp_path: Path, name: str) -> None:
    (lay(tmp_path / "made") / name).unlink()
    with pytest.raises(ArtifactRefused, match=f"has no {name}"):
        shelf.store.put(tmp_path / "made", FACTS)


@pytest.mark.parametrize("name", [TENSORS, CONFIG, MANIFEST])
def test_one_flipped_byte_anywhere_is_caught_and_named(shelf: Shelf, tmp_path: Path, name: str) -> None:
    sha256 = shelf.store.put(lay(tmp_path / "made"), FACTS)
    whole = shelf.read(at := f"sha256/{sha256}/{name}")
    for place in {0, len(whole) // 2, len(whole) - 1}:
        altered = bytearray(whole)
        altered[place] ^= 1
        shelf.write(at, bytes(altered))
        with pytest.raises(ArtifactRefused, match=f"{name} was altered"):
            facts_of(shelf.store, sha256)
    shelf.write(at, whole)
    assert facts_of(shelf.store, sha256) == FACTS


@pytest.mark.parametrize("name", [TENSORS, CONFIG])
def test_a_file_that_is_gone_is_refused(shelf: Shelf, tmp_path: Path, name: str) -> None:
    sha256 = shelf.store.put(lay(tmp_path / "made"), FACTS)
    shelf.remove(f"sha256/{sha256}/{name}")
    with pytest.raises(ArtifactRefused, match=sha256):
        facts_of(shelf.store, sha256)


def test_more_bytes_than_the_manifest_says_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    sha256 = shelf.store.put(lay(tmp_path / "made"), FACTS)
    shelf.write(at := f"sha256/{sha256}/{TENSORS}", shelf.read(at) + bytes(1 << 20))
    with pytest.raises(ArtifactRefused, match=TENSORS):
        facts_of(shelf.store, sha256)


def test_putting_again_repairs_a_damaged_one(shelf: Shelf, tmp_path: Path) -> None:
    sha256 = shelf.store.put(lay(tmp_path / "made"), FACTS)
    shelf.write(f"sha256/{sha256}/{TENSORS}", b"rubbish")
    assert shelf.store.put(lay(tmp_path / "made"), FACTS) == sha256
    shutil.rmtree(shelf.copies, ignore_errors=True)
    assert facts_of(shelf.store, sha256) == FACTS


def test_a_datasets_manifest_is_kept_by_its_hash_and_an_altered_one_is_refused(shelf: Shelf) -> None:
    body = b'{"company":"acme"}'
    sha256 = shelf.store.put_manifest(body)
    assert shelf.store.put_manifest(body) == sha256 == hashlib.sha256(body).hexdigest()
    assert shelf.store.manifest(sha256) == body
    assert shelf.read(f"manifests/sha256/{sha256}.json") == body
    shelf.write(f"manifests/sha256/{sha256}.json", b"{}")
    with pytest.raises(ArtifactRefused, match="was altered"):
        shelf.store.manifest(sha256)
    with pytest.raises(ArtifactMissing, match="not there"):
        shelf.store.manifest("0" * 64)


def test_what_was_measured_lies_beside_the_artifact(shelf: Shelf, tmp_path: Path) -> None:
    sha256 = shelf.store.put(lay(tmp_path / "made"), FACTS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    shelf.store.put_measures(tmp_path / "out", sha256)
    assert shelf.read(f"measures/{sha256}/metrics.json") == b"{}"
    shutil.rmtree(shelf.copies, ignore_errors=True)
    found = shelf.store.measured(sha256, ("metrics.json", "error_analysis.json"))
    assert {name: path.read_bytes() for name, path in found.items()} == {"metrics.json": b"{}"}
    assert facts_of(shelf.store, sha256) == FACTS


def test_papers_lie_beside_the_artifact_and_change_nothing_of_its_name(shelf: Shelf, tmp_path: Path) -> None:
    store = shelf.holding(ONE, own=ONE)
    sha256 = store.put(lay(tmp_path / "made"), FACTS)
    assert store.papers(sha256) == {}
    store.put_papers(sha256, "acme/support@1", CARDS)
    assert set(store.papers(sha256)) == set(PAPERS)
    assert store.put(lay(tmp_path / "made"), FACTS) == sha256
    assert store.signer(sha256) == key_id(ONE.public_key())
    before = store.papers(sha256)
    store.put_papers(sha256, "acme/support@1", CARDS)
    assert store.papers(sha256) == before, "the same key and files, the same bytes"
    with pytest.MonkeyPatch.context() as patch:
        for writes in ("gpu_workers.adapters.store.Path.write_bytes", "gpu_workers.adapters.remote.RemoteFiles.send"):
            patch.setattr(writes, lambda *_: pytest.fail("what stands there already is written again"))
        store.put_papers(sha256, "acme/support@1", CARDS)
    assert facts_of(store, sha256) == FACTS


@pytest.mark.parametrize("own", [ONE, None], ids=["signed", "not signed"])
def test_the_last_papers_stand_and_nothing_beside_them(shelf: Shelf, tmp_path: Path, own: Any) -> None:
    before = shelf.holding(ONE, own=ONE)
    sha256 = before.put(lay(tmp_path / "made"), FACTS)
    before.put_papers(sha256, "acme/support@1", CARDS)
    store = shelf.holding(ONE, own=own)
    store.put_papers(sha256, "acme/copy@1", {CARD: b"# acme/copy@1\n"})
    assert set(store.papers(sha256)) == {CARD, SIGNATURE} if own else {CARD}
    if own:
        assert store.signer(sha256) == key_id(ONE.public_key())


def test_unsigned_and_foreign_ones_are_refused_where_signatures_are_demanded(shelf: Shelf, tmp_path: Path) -> None:
    signing = shelf.holding(ONE, own=ONE)
    sha256 = signing.put(lay(tmp_path / "made"), FACTS)
    with pytest.raises(NotSigned, match=rf"adapter {sha256}: nobody signed it.*RILLFOLD_ADAPTER_KEYS.*adapters sign"):
        signing.place(sha256)
    signing.put_papers(sha256, "acme/support@1", CARDS)
    assert verify(signing.place(sha256), sha256) == FACTS
    with pytest.raises(NotSigned, match=f"signed by the key {key_id(ONE.public_key())}, which is none of 1"):
        shelf.holding(OTHER).place(sha256)
    shelf.holding(OTHER, own=OTHER).put_papers(sha256, "acme/support@1", CARDS)
    assert verify(shelf.holding(OTHER).place(sha256), sha256) == FACTS, "signed anew, whatever was copied before"
    assert verify(shelf.store.place(sha256), sha256) == FACTS, "without a list the hash vouches"


@pytest.mark.parametrize("name", PAPERS)
def test_papers_that_were_altered_or_are_gone_are_not_what_was_signed(shelf: Shelf, tmp_path: Path, name: str) -> None:
    store = shelf.holding(ONE, own=ONE)
    sha256 = store.put(lay(tmp_path / "made"), FACTS)
    store.put_papers(sha256, "acme/support@1", CARDS)
    whole = shelf.read(at := f"papers/sha256/{sha256}/{name}")
    for altered in (whole[:-2], b"", b"{" * 9_999, whole.replace(b"a", b"b") + b" !"):
        shelf.write(at, altered)
        with pytest.raises(NotSigned, match=sha256):
            store.place(sha256)
    shelf.remove(at)
    with pytest.raises(NotSigned, match=sha256):
        store.place(sha256)


def test_a_signature_of_another_adapter_is_none_of_this(shelf: Shelf, tmp_path: Path) -> None:
    store = shelf.holding(ONE, own=ONE)
    good = store.put(lay(tmp_path / "good"), FACTS)
    store.put_papers(good, "acme/support@1", CARDS)
    evil = store.put(lay(tmp_path / "evil", {name: tensor * 9 for name, tensor in matrices().items()}), FACTS)
    for name in PAPERS:
        shelf.write(f"papers/sha256/{evil}/{name}", shelf.read(f"papers/sha256/{good}/{name}"))
    with pytest.raises(NotSigned, match=f"{TENSORS}, {MANIFEST}: not what was signed"):
        store.place(evil)


Fault = Exception | threading.Event


class FaultyFiles(MemoryFileSystem):
    """Memory whose next calls fail as a network, a disk or an owner lets them fail."""

    protocol = "faulty"
    cachable = False
    reads: ClassVar[list[Fault]] = []
    writes: ClassVar[list[Fault]] = []
    written: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://")))

    def put_file(self, source: str, name: str, **more: Any) -> None:
        self.written.append(name)
        _fail(self.writes)
        super().put_file(source, name, **more)

    def cat_file(self, *given: Any, **more: Any) -> bytes:
        _fail(self.reads)
        return bytes(super().cat_file(*given, **more))

    def get_file(self, *given: Any, **more: Any) -> None:
        _fail(self.reads)
        super().get_file(*given, **more)


def _fail(faults: list[Fault]) -> None:
    if faults:
        fault = faults.pop()
        if isinstance(fault, Exception):
            raise fault
        fault.wait()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[RemoteStore]:
    fsspec.register_implementation("faulty", FaultyFiles, clobber=True)
    yield remote(f"faulty:/{tmp_path}/store", tmp_path / "copies", silent=0.3)
    for kept in (FaultyFiles.reads, FaultyFiles.writes, FaultyFiles.written):
        kept.clear()


FULL = OSError(errno.ENOSPC, "No space left")
CLOSED = {"full": FULL, "read-only": OSError(errno.EROFS, "Read-only"), "not ours": PermissionError("Access Denied")}
AWAY: dict[str, Exception] = {"a reset": ConnectionResetError("reset"), "of its package": RuntimeError("SlowDown")}


@pytest.mark.parametrize("fault", CLOSED.values(), ids=CLOSED)
def test_a_store_that_takes_nothing_says_so_and_what_was_made_is_kept(
    faulty: RemoteStore, tmp_path: Path, fault: Exception
) -> None:
    FaultyFiles.writes[:] = [fault]
    with pytest.raises(StoreTakesNothing, match=rf"faulty://\S+ takes no sha256/.*Make room.*{tmp_path}/copies"):
        faulty.put(made := lay(tmp_path / "made"), FACTS)
    assert len(FaultyFiles.written) == 1, "nobody waits for room"
    shutil.rmtree(made)
    (kept,) = (tmp_path / "copies" / "sha256").iterdir()
    assert facts_of(FolderStore(tmp_path / "copies"), kept.name) == FACTS
    assert faulty.put(lay(made), FACTS) == kept.name
    shutil.rmtree(tmp_path / "copies")
    assert facts_of(faulty, kept.name) == FACTS
    FaultyFiles.writes[:] = [fault]
    assert not faulty.has_room() and faulty.has_room()


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY)
def test_a_store_that_is_away_for_a_moment_is_asked_again(
    faulty: RemoteStore, tmp_path: Path, fault: Exception
) -> None:
    sha256 = faulty.put(lay(tmp_path / "made"), FACTS)
    shutil.rmtree(tmp_path / "copies")
    FaultyFiles.reads[:] = [fault]
    assert facts_of(faulty, sha256) == FACTS
    FaultyFiles.writes[:] = [fault, fault]
    assert faulty.put_manifest(b"{}") == hashlib.sha256(b"{}").hexdigest()
    assert faulty.manifest(hashlib.sha256(b"{}").hexdigest()) == b"{}"


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY)
def test_a_store_that_stays_away_is_named_and_copies_are_served_on(
    faulty: RemoteStore, tmp_path: Path, fault: Exception
) -> None:
    sha256 = faulty.put(lay(tmp_path / "made"), FACTS)
    FaultyFiles.reads[:] = FaultyFiles.writes[:] = [fault] * 9
    assert facts_of(faulty, sha256) == FACTS
    with pytest.raises(StoreAway, match=r"faulty://\S+ does not answer, asked 3 times: .*Is the address right"):
        faulty.put_manifest(b"{}")
    shutil.rmtree(tmp_path / "copies")
    with pytest.raises(StoreAway, match=r"faulty://\S+ does not answer, asked 2 times"):
        faulty.place(sha256)


def test_a_store_that_falls_silent_is_away(faulty: RemoteStore, tmp_path: Path) -> None:
    sha256 = faulty.put(lay(tmp_path / "made"), FACTS)
    shutil.rmtree(tmp_path / "copies")
    FaultyFiles.reads[:] = [silence := threading.Event()] * 2
    try:
        with pytest.raises(StoreAway, match=r"it said nothing for 0\.3 seconds"):
            faulty.place(sha256)
    finally:
        silence.set()
    assert facts_of(faulty, sha256) == FACTS


def test_a_damaged_copy_is_fetched_anew(faulty: RemoteStore, tmp_path: Path) -> None:
    sha256 = faulty.put(lay(tmp_path / "made"), FACTS)
    (faulty.place(sha256) / TENSORS).write_bytes(b"rubbish")
    assert facts_of(faulty, sha256) == FACTS


def test_an_address_is_a_folder_or_one_that_an_installed_package_understands(tmp_path: Path) -> None:
    def kept(address: str | None) -> AdapterStore:
        return artifact_store(Settings(data_dir=tmp_path, cache_dir=tmp_path / "cache", adapter_store=address))

    sha256 = kept(str(tmp_path / "a")).put(lay(tmp_path / "made"), FACTS)
    assert facts_of(kept(f"file://{tmp_path}/a"), sha256) == FACTS
    assert kept(None).uri(sha256) == (tmp_path / "adapters" / "sha256" / sha256).as_uri()
    assert kept(f"memory://{tmp_path}/b").put(tmp_path / "made", FACTS) == sha256
    with pytest.raises(NoSuchStore, match=r"adapter store nonsense://x \(RILLFOLD_ADAPTER_STORE\)"):
        kept("nonsense://x")
    with pytest.raises(Stop, match="RILLFOLD_ADAPTER_STORE=' ' is not usable"):
        from_env({"RILLFOLD_ADAPTER_STORE": " "})


def test_a_password_in_an_address_is_told_to_nobody(tmp_path: Path) -> None:
    store = remote("memory://me:secret@host/a", tmp_path)
    assert store.uri("0" * 64) == f"memory://host/a/sha256/{'0' * 64}"
    with pytest.raises(ArtifactMissing) as told:
        store.place("0" * 64)
    assert "secret" not in str(told.value)
    with pytest.raises(NoSuchStore) as refused:
        RemoteFiles("nonsense://me:secret@host/a")
    assert "secret" not in str(refused.value)
