"""An adapter that somebody brings in a folder: what it is, for which base, and whose signature is on it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gpu_workers.adapters.check import TENSORS, check_adapter, shapes_of
from gpu_workers.adapters.keys import CARD, AdapterKeys
from gpu_workers.adapters.origin import base_of, facts_said
from gpu_workers.adapters.signature import SIGNATURE, signed_files
from gpu_workers.adapters.store import FILES, MANIFEST, MAX_BYTES, MAX_PAPER, Facts, must_hold_files
from gpu_workers.bases.files import BaseIdentity, file_sha256
from gpu_workers.errors import ArtifactRefused, NotSigned

BESIDE = {MANIFEST: MAX_BYTES[MANIFEST], CARD: MAX_PAPER}
"""What is taken of a folder beside the adapter's own files, and how much of it at most."""


class Brought(NamedTuple):
    rank: int
    alpha: float
    facts: Facts | None
    """What its manifest says, where it was downloaded from a registry."""
    card: bytes | None
    """Its own, where it has one."""


def read_brought(folder: Path, keys: AdapterKeys) -> Brought:
    """Raises `ArtifactRefused` for what could not be served, `NotSigned` for what nobody vouches for."""
    must_hold_files(folder)
    beside = {name: body for name, most in BESIDE.items() if (body := _read(folder / name, most)) is not None}
    if keys.demanded:
        _must_be_signed(folder, keys, beside)
    config = check_adapter(folder)
    facts = facts_said(beside[MANIFEST]) if MANIFEST in beside else None
    return Brought(config.rank, config.alpha, facts, beside.get(CARD))


def must_fit(folder: Path, base: Path, identity: BaseIdentity) -> None:
    """Every matrix has its place in this base, and the folder names no other one."""
    if (told := base_of(folder)) not in (None, identity.sha256, identity.weights_sha256):
        raise ArtifactRefused(f"adapter {folder}: was trained on base {told}, {identity.name} is {identity.sha256}.")
    from gpu_workers.bases.shapes import linear_shapes  # who only asks for adapters runs without safetensors

    places = linear_shapes(base)
    for module, shape in shapes_of(folder / TENSORS).items():
        if places.get(module) != shape:
            raise ArtifactRefused(
                f"adapter {folder}: {module} of {shape[0]} x {shape[1]} has no place in {identity.name}, which has "
                f"{places.get(module, 'no such module')} there. Give its own base with --base."
            )


def _read(path: Path, most: int) -> bytes | None:
    """What is no such file, or too large for one, is left there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        body = file.read(most + 1)
    return body if len(body) <= most else None


def _must_be_signed(folder: Path, keys: AdapterKeys, beside: Mapping[str, bytes]) -> None:
    """All that is taken of it is what was signed; what else lies there is left there."""
    bundle = _read(folder / SIGNATURE, MAX_PAPER)
    if bundle is None:
        raise NotSigned(f"adapter {folder}: has no {SIGNATURE}, and RILLFOLD_ADAPTER_KEYS demands one. Sign it there.")
    try:
        files = signed_files(bundle, keys.known).files
    except NotSigned as error:
        raise NotSigned(f"adapter {folder}: {error}. Add its public key to RILLFOLD_ADAPTER_KEYS.") from error
    taken = {name: file_sha256(folder / name) for name in FILES}
    taken |= {name: hashlib.sha256(body).hexdigest() for name, body in beside.items()}
    if wrong := [name for name, sha256 in taken.items() if files.get(name) != sha256]:
        remedy = "Copy the folder whole, without what was added to it."
        raise NotSigned(f"adapter {folder}: {', '.join(wrong)} is not what was signed. {remedy}")
