"""Adapters behind a URL of fsspec, and a copy of those that were asked for on this machine."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from gpu_workers.adapters.keys import PAPERS, AdapterKeys
from gpu_workers.adapters.remote_files import RemoteFiles
from gpu_workers.adapters.store import (
    FILES,
    MANIFEST,
    MAX_BYTES,
    MAX_PAPER,
    SMALL,
    Facts,
    FolderStore,
    files_of,
    hex_of,
    manifest_in,
    verify,
)
from gpu_workers.errors import ArtifactMissing, ArtifactRefused, StoreAway, StoreTakesNothing

log = logging.getLogger(__name__)
MAX_MEASURES = 64 << 20
"""Bytes of one file of them."""


class RemoteStore:
    """The same folders as in `FolderStore`. The manifest of an artifact goes last: with it, the artifact is there."""

    def __init__(self, files: RemoteFiles, copies: FolderStore, keys: AdapterKeys | None = None) -> None:
        self._files, self._copies, self._keys = files, copies, keys or AdapterKeys()

    def put(self, folder: Path, facts: Facts) -> str:
        sha256 = self._copies.put(folder, facts)
        if not self._is_whole(sha256):
            for name in (*FILES, MANIFEST):
                self._files.send(self._copies.place(sha256) / name, f"sha256/{sha256}/{name}")
        return sha256

    def place(self, sha256: str) -> Path:
        folder = self._copy(hex_of(sha256))
        if self._keys.demanded:
            self._vouched(sha256, folder)
        return folder

    def uri(self, sha256: str) -> str:
        return f"{self._files.url}/sha256/{hex_of(sha256)}"

    def files(self, sha256: str, company: str | None = None) -> Mapping[str, str]:
        return files_of(self._copy(hex_of(sha256)), sha256, company)

    def put_papers(self, sha256: str, name: str, papers: Mapping[str, bytes]) -> None:
        signed, before = self._keys.signed(name, self.files(sha256), papers), self.papers(sha256)
        self._copies.put_papers(sha256, name, signed)
        for each in PAPERS:
            at = f"papers/sha256/{sha256}/{each}"
            if each in signed and signed[each] != before.get(each):
                self._files.send(self._copies.paper(sha256, each), at)
            elif each in before and each not in signed:
                self._files.remove(at)

    def papers(self, sha256: str) -> Mapping[str, bytes]:
        """As they are there now; an adapter may have been signed anew."""
        found = {}
        for name in PAPERS:
            try:
                found[name] = self._files.read(f"papers/sha256/{hex_of(sha256)}/{name}", MAX_PAPER)
            except FileNotFoundError:
                continue
        return found

    def signer(self, sha256: str) -> str:
        return self._keys.signer(self.files(sha256), self.papers(sha256))

    def put_manifest(self, body: bytes) -> str:
        sha256 = self._copies.put_manifest(body)
        self._files.send(self._copies.manifest_file(sha256), f"manifests/sha256/{sha256}.json")
        return sha256

    def manifest(self, sha256: str) -> bytes:
        try:
            return self._copies.manifest(sha256)
        except (ArtifactMissing, ArtifactRefused):
            name = f"manifests/sha256/{hex_of(sha256)}.json"
        try:
            body = self._files.read(name, MAX_BYTES[MANIFEST])
        except FileNotFoundError as error:
            raise ArtifactMissing(f"dataset manifest {self._files.url}/{name}: not there.") from error
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ArtifactRefused(f"dataset manifest {self._files.url}/{name}: was altered. Take it away.")
        self._copies.put_manifest(body)
        return body

    def put_measures(self, folder: Path, sha256: str) -> None:
        self._copies.put_measures(folder, sha256)
        for file in sorted(folder.glob("*")):
            self._files.send(file, f"measures/{sha256}/{file.name}")

    def measured(self, sha256: str, names: Collection[str]) -> Mapping[str, Path]:
        """As they are there now: an artifact may have been measured again."""
        with TemporaryDirectory() as folder:
            for name in names:
                with suppress(FileNotFoundError):
                    self._files.fetch(f"measures/{hex_of(sha256)}/{name}", Path(folder) / name, MAX_MEASURES)
            self._copies.put_measures(Path(folder), sha256)
        return self._copies.measured(sha256, names)

    def has_room(self) -> bool:
        if not self._copies.has_room():
            return False
        with NamedTemporaryFile() as probe:
            probe.write(bytes(SMALL))
            probe.flush()
            try:
                self._files.send(Path(probe.name), name := f"probes/{Path(probe.name).name}")
                self._files.remove(name)
            except (OSError, StoreAway, StoreTakesNothing):
                return False
        return True

    def _vouched(self, sha256: str, folder: Path) -> None:
        """By the copy of its papers, and where they do not vouch for it by those that are there now."""
        files = files_of(folder, sha256)
        try:
            self._keys.check(sha256, files, self._copies.papers(sha256))
        except ArtifactRefused:
            papers = self.papers(sha256)
            self._keys.check(sha256, files, papers)
            self._copies.put_papers(sha256, sha256, papers)

    def _is_whole(self, sha256: str) -> bool:
        try:
            with self._copies.draft() as draft:
                self._fetch(sha256, draft)
        except (ArtifactMissing, ArtifactRefused):
            return False
        return True

    def _copy(self, sha256: str) -> Path:
        """Whole, whatever has happened to it on this machine."""
        try:
            verify(folder := self._copies.place(sha256), sha256)
            return folder
        except ArtifactMissing:
            pass
        except ArtifactRefused as error:
            log.warning("%s It is fetched from %s anew.", error, self._files.url)
        with self._copies.draft() as draft:
            self._fetch(sha256, draft)
            return self._copies.keep(draft, sha256)

    def _fetch(self, sha256: str, draft: Path) -> None:
        at = f"sha256/{sha256}"
        try:
            (draft / MANIFEST).write_bytes(self._files.read(f"{at}/{MANIFEST}", MAX_BYTES[MANIFEST]))
        except FileNotFoundError as error:
            where = self._files.url
            raise ArtifactMissing(
                f"adapter {sha256}: not in {where}. Is this the store it was published to?"
            ) from error
        try:
            self._fetch_rest(sha256, draft)
        except ArtifactRefused as error:
            raise ArtifactRefused(f"{self._files.url}/{at}: {error} Publish it again.") from error

    def _fetch_rest(self, sha256: str, draft: Path) -> None:
        """As the manifest says: no byte more, and no other."""
        sizes = manifest_in(draft, sha256).files
        for name in FILES:
            most = min(MAX_BYTES[name], sizes[name].size if name in sizes else 0)
            try:
                self._files.fetch(f"sha256/{sha256}/{name}", draft / name, most)
            except FileNotFoundError as error:
                raise ArtifactRefused(f"it has no {name}.") from error
        verify(draft, sha256)
