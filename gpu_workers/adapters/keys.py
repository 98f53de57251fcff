"""Whose signatures count here, and what is signed with: the question that a store asks before anybody loads."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpu_workers.adapters.signature import SIGNATURE, PrivateKey, PublicKey, sign, signed_files
from gpu_workers.errors import NotSigned

CARD, PROVENANCE = "README.md", "provenance.json"
PAPERS = (CARD, PROVENANCE, SIGNATURE)
"""What goes with an adapter and decides nothing of what it computes. The signature is written last."""
REMEDY = (
    "Add the public key of whoever signed it to RILLFOLD_ADAPTER_KEYS, or, where you know the adapter, sign it with "
    "`rillfold adapters sign COMPANY/ROLE@VERSION`."
)


@dataclass(frozen=True)
class AdapterKeys:
    """Without a list the hash that the log names vouches for an adapter. With one, a key of it must have signed."""

    known: Mapping[str, PublicKey] = field(default_factory=dict)
    """By their ids."""
    demanded: bool = False
    own: Callable[[], PrivateKey] | None = None
    """Made when something is first signed with it. None: nothing is signed here."""

    def signed(self, name: str, files: Mapping[str, str], papers: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The papers with a signature over them and the adapter's files; as they are where nothing signs."""
        if self.own is None:
            return papers
        return {**papers, SIGNATURE: sign(_together(files, papers), name, self.own())}

    def signer(self, files: Mapping[str, str], papers: Mapping[str, bytes]) -> str:
        """The id of the key that stands for exactly these. Raises `NotSigned` with what is wrong."""
        if SIGNATURE not in papers:
            raise NotSigned("nobody signed it")
        from_key, there = signed_files(papers[SIGNATURE], self.known), _together(files, papers)
        if wrong := sorted(name for name in {*there, *from_key.files} if there.get(name) != from_key.files.get(name)):
            raise NotSigned(f"{', '.join(wrong)!s:.200}: not what was signed")
        return from_key.signer

    def check(self, sha256: str, files: Mapping[str, str], papers: Mapping[str, bytes]) -> None:
        """Before it is loaded. Raises `NotSigned` with the adapter and the remedy."""
        if not self.demanded:
            return
        try:
            self.signer(files, papers)
        except NotSigned as error:
            raise NotSigned(f"adapter {sha256}: {error}. {REMEDY}") from error


def _together(files: Mapping[str, str], papers: Mapping[str, bytes]) -> dict[str, str]:
    own = {name: hashlib.sha256(body).hexdigest() for name, body in papers.items() if name != SIGNATURE}
    return {**files, **own}
