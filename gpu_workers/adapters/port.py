"""What keeps adapters: by the hash of their content, and what goes with each beside it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from gpu_workers.adapters.store import Facts


class AdapterStore(Protocol):
    """Content-addressed: putting the same twice is putting it once. May block: it is disk, or network."""

    def put(self, folder: Path, facts: Facts) -> str:
        """Takes the two files of an adapter; returns the hash under which they can be had once it returns."""
        ...

    def place(self, sha256: str) -> Path:
        """Where its files lie on this machine, with the signature that is demanded here, and unread: `verify` them.
        `ArtifactMissing` where there are none."""
        ...

    def uri(self, sha256: str) -> str: ...

    def files(self, sha256: str, company: str | None = None) -> Mapping[str, str]:
        """The sha256 of each of its files by its name, as its manifest says. Raises `ArtifactRefused` where it is of
        another company than is said."""
        ...

    def put_papers(self, sha256: str, name: str, papers: Mapping[str, bytes]) -> None:
        """What goes with an adapter that was put, signed with the key of this installation. The last ones stand, and
        nothing else beside them."""
        ...

    def papers(self, sha256: str) -> Mapping[str, bytes]:
        """By their names; none for adapters of older releases."""
        ...

    def signer(self, sha256: str) -> str:
        """The id of the known key that signed it. Raises `NotSigned`."""
        ...

    def put_manifest(self, body: bytes) -> str:
        """Of a dataset, as canonical JSON."""
        ...

    def manifest(self, sha256: str) -> bytes:
        """What was put, or an error that says why not."""
        ...

    def put_measures(self, folder: Path, sha256: str) -> None:
        """What a run measured of an artifact, for people."""
        ...

    def measured(self, sha256: str, names: Collection[str]) -> Mapping[str, Path]:
        """Those files of it that there are, on this machine."""
        ...

    def has_room(self) -> bool:
        """For a small adapter. A store that is full takes none, whatever it is."""
        ...
