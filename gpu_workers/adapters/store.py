"""Adapters by content hash. What is read is what was written, or an error that says which part is not."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp

import msgspec

from gpu_workers.adapters.check import CONFIG as CONFIG
from gpu_workers.adapters.check import TENSORS as TENSORS
from gpu_workers.adapters.check import check_adapter
from gpu_workers.adapters.config import MAX_CONFIG
from gpu_workers.adapters.keys import CARD, PAPERS, AdapterKeys
from gpu_workers.bases.files import file_sha256
from gpu_workers.errors import ArtifactMissing, ArtifactRefused

MANIFEST = "manifest.json"
FILES = (CONFIG, TENSORS)
SMALL = 1 << 20
MAX_PAPER = 1 << 20
MAX_BYTES = {CONFIG: MAX_CONFIG, TENSORS: 4 << 30, MANIFEST: 1 << 20}


class File(msgspec.Struct, frozen=True, kw_only=True):
    sha256: str
    size: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server must know before it loads the tensors."""

    company: str
    base_model: str
    base_sha256: str
    tools_in_prompt: bool
    """The adapter was trained with its tools listed in the prompt, and must be served so."""


class ArtifactManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its hash names the artifact. Nothing in it depends on when or where the adapter was made."""

    format: int = 1
    facts: Facts
    files: dict[str, File]


def must_hold_files(folder: Path) -> None:
    """Raises ArtifactRefused with the folder and what it lacks."""
    if not folder.is_dir():
        what = "no folder" if folder.exists() else "not there"
        raise ArtifactRefused(f"adapter {folder}: is {what}. Give the folder that PEFT saved the adapter to.")
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise ArtifactRefused(f"adapter {folder}: has no {' and no '.join(absent)}. Copy it whole.")


class FolderStore:
    """`<root>/sha256/<hex>/` with the adapter's two files and its manifest; `<root>/manifests/sha256/<hex>.json` with
    that of the dataset: by it, an old adapter can be made again; `<root>/papers/sha256/<hex>/` with what goes with an
    adapter: its card, its statement and its signature.

    Content-addressed: putting the same twice is putting it once.
    """

    def __init__(self, root: Path, keys: AdapterKeys | None = None) -> None:
        self._root = root.absolute() / "sha256"
        self._manifests = root.absolute() / "manifests" / "sha256"
        self._papers = root.absolute() / "papers" / "sha256"
        self._keys = keys or AdapterKeys()

    def put_manifest(self, body: bytes) -> str:
        """Of a dataset, as canonical JSON. On the disk, whole, once it returns."""
        sha256 = hashlib.sha256(body).hexdigest()
        self._manifests.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=".draft-", dir=self._manifests))
        try:
            (draft / MANIFEST).write_bytes(body)
            _sync(draft / MANIFEST)
            (draft / MANIFEST).replace(self._manifests / f"{sha256}.json")
            _sync(self._manifests)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return sha256

    def manifest(self, sha256: str) -> bytes:
        """What was put, or an error that says why not."""
        path = self.manifest_file(sha256)
        try:
            body = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtifactMissing(f"dataset manifest {path}: not there. Is this the store of that run?") from error
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ArtifactRefused(f"dataset manifest {path}: was altered: its hash is not its name. Take it away.")
        return body

    def manifest_file(self, sha256: str) -> Path:
        return self._manifests / f"{hex_of(sha256)}.json"

    def put_measures(self, folder: Path, sha256: str) -> None:
        """What a run measured of an artifact, for people: beside it, since an artifact's files are exactly its own."""
        if folder.is_dir():
            shutil.copytree(folder, self.measures(sha256), dirs_exist_ok=True)

    def measured(self, sha256: str, names: Collection[str]) -> Mapping[str, Path]:
        folder = self.measures(sha256)
        return {name: path for name in names if (path := folder / name).is_file()}

    def measures(self, sha256: str) -> Path:
        return self._root.parent / "measures" / hex_of(sha256)

    def put(self, folder: Path, facts: Facts) -> str:
        """Takes the two files of an adapter; returns the hash under which they can be had once it returns."""
        must_hold_files(folder)
        check_adapter(folder)
        manifest = ArtifactManifest(facts=facts, files={name: _file(folder / name) for name in FILES})
        body = msgspec.json.encode(manifest, order="sorted")
        sha256 = hashlib.sha256(body).hexdigest()
        with self.draft() as draft:
            for name in FILES:
                shutil.copyfile(folder / name, draft / name)
            (draft / MANIFEST).write_bytes(body)
            self.keep(draft, sha256)
        return sha256

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder for an artifact that is not whole yet."""
        self._root.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=".draft-", dir=self._root))
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def has_room(self) -> bool:
        """For a small adapter. A disk that is full takes none, whatever it is."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(prefix=".draft-", dir=self._root) as probe:
                probe.write(bytes(SMALL))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError:
            return False
        return True

    def place(self, sha256: str) -> Path:
        """Where its files lie, with the signature that is demanded here, and unread: `verify` them. `ArtifactMissing`
        where there are none."""
        folder = self._root / hex_of(sha256)
        if not folder.is_dir():
            raise ArtifactMissing(f"adapter {sha256}: not in {self._root}. Is this the store it was published to?")
        if self._keys.demanded:
            self._keys.check(sha256, files_of(folder, sha256), self.papers(sha256))
        return folder

    def files(self, sha256: str, company: str | None = None) -> Mapping[str, str]:
        """The sha256 of each by its name, as its manifest says."""
        return files_of(self._root / hex_of(sha256), sha256, company)

    def put_papers(self, sha256: str, name: str, papers: Mapping[str, bytes]) -> None:
        """Signed with the key of this installation. The last ones stand, and the signature comes last. The same ones
        are not written again: whoever reads them meanwhile would meet halves."""
        signed = self._keys.signed(name, self.files(sha256), papers)
        if signed == self.papers(sha256):
            return
        self.paper(sha256, CARD).parent.mkdir(parents=True, exist_ok=True)
        with self.draft() as draft:
            for each in PAPERS:
                if each in signed:
                    (draft / each).write_bytes(signed[each])
                    _sync(draft / each)
                    (draft / each).replace(self.paper(sha256, each))
                else:
                    self.paper(sha256, each).unlink(missing_ok=True)
        _sync(self._papers / sha256)

    def papers(self, sha256: str) -> Mapping[str, bytes]:
        """By their names; none for adapters of older releases."""
        found = {}
        for name in PAPERS:
            with suppress(FileNotFoundError), self.paper(sha256, name).open("rb") as file:
                found[name] = file.read(MAX_PAPER + 1)
        return found

    def paper(self, sha256: str, name: str) -> Path:
        return self._papers / hex_of(sha256) / name

    def signer(self, sha256: str) -> str:
        """The id of the known key that signed it. Raises `NotSigned`."""
        return self._keys.signer(self.files(sha256), self.papers(sha256))

    def uri(self, sha256: str) -> str:
        return (self._root / hex_of(sha256)).as_uri()

    def keep(self, draft: Path, sha256: str) -> Path:
        """Whole and on the disk before it has its name. Damaged ones that stand in the way make room."""
        for name in (*FILES, MANIFEST):
            _sync(draft / name)
        _sync(draft)
        draft.chmod(0o755)
        target = self._root / sha256
        if target.exists():
            try:
                verify(target, sha256)
                return target
            except ArtifactRefused:
                target.rename(draft.with_name(f"{draft.name}-damaged"))
        draft.rename(target)
        _sync(self._root)
        return target


def verify(folder: Path, sha256: str, company: str | None = None) -> Facts:
    """Exact names, sizes and hashes: what was put, and so was checked. Whoever reads the tensors checks them again.

    `company`: whose it must be; None: whoever asks holds it by its hash, for himself.
    """
    must_be_exact(folder)
    manifest = manifest_in(folder, sha256, company)
    if set(manifest.files) != set(FILES):
        raise ArtifactRefused(f"adapter {folder}: {MANIFEST} names {sorted(manifest.files)!s:.200}, not {FILES}.")
    for name in FILES:
        if _file(folder / name) != manifest.files[name]:
            raise ArtifactRefused(f"adapter {folder}: {name} was altered: size or hash differ from {MANIFEST}.")
    return manifest.facts


def must_be_exact(folder: Path) -> None:
    """The files of an artifact and no other, none of them a link, nor larger than any is."""
    names = {entry.name: entry for entry in folder.iterdir()}
    if set(names) != {*FILES, MANIFEST} or any(entry.is_symlink() or not entry.is_file() for entry in names.values()):
        raise ArtifactRefused(f"adapter {folder}: holds {sorted(names)}, not exactly {sorted((*FILES, MANIFEST))}.")
    for name, most in MAX_BYTES.items():
        if names[name].stat().st_size > most:
            raise ArtifactRefused(f"adapter {folder}: {name} is larger than {most} bytes.")


def files_of(folder: Path, sha256: str, company: str | None = None) -> Mapping[str, str]:
    """The sha256 of each file of an artifact, as its manifest says."""
    files = manifest_in(folder, sha256, company).files
    return {**{name: file.sha256 for name, file in files.items()}, MANIFEST: sha256}


def manifest_in(folder: Path, sha256: str, company: str | None = None) -> ArtifactManifest:
    """The very one that the hash names, and of that company."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            body = file.read(MAX_BYTES[MANIFEST] + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ArtifactRefused(f"adapter {folder}: has no {MANIFEST}. Publish it again.") from error
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ArtifactRefused(f"adapter {folder}: {MANIFEST} was altered: its hash is not {sha256}.")
    try:
        manifest = msgspec.json.decode(body, type=ArtifactManifest)
    except msgspec.DecodeError as error:
        raise ArtifactRefused(f"adapter {folder}: {MANIFEST} is not understood: {error}.") from error
    if company is not None and manifest.facts.company != company:
        raise ArtifactRefused(f"adapter {folder}: is of {manifest.facts.company:.100}, not of {company:.100}.")
    return manifest


def hex_of(sha256: str) -> str:
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ArtifactRefused(f"{sha256!r} is not a sha256 in lower case hexadecimal.")
    return sha256


def _file(path: Path) -> File:
    return File(sha256=file_sha256(path), size=path.stat().st_size)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
