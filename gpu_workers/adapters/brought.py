"""An adapter that somebody brings in a folder: what it is, for which base, and whose signature is on it."""

from pathlib import Path
from typing import NamedTuple

from gpu_workers.adapters.check import TENSORS, check_adapter, shapes_of
from gpu_workers.adapters.keys import AdapterKeys
from gpu_workers.adapters.origin import base_of, facts_in
from gpu_workers.adapters.signature import SIGNATURE, signed_files
from gpu_workers.adapters.store import FILES, MAX_PAPER, Facts, must_hold_files
from gpu_workers.bases.files import BaseIdentity, file_sha256
from gpu_workers.errors import ArtifactRefused, NotSigned


class Brought(NamedTuple):
    rank: int
    alpha: float
    facts: Facts | None
    """What its manifest says, where it was downloaded from a registry."""


def read_brought(folder: Path, keys: AdapterKeys) -> Brought:
    """Raises `ArtifactRefused` for what could not be served, `NotSigned` for what nobody vouches for."""
    must_hold_files(folder)
    if keys.demanded:
        _must_be_signed(folder, keys)
    config = check_adapter(folder)
    return Brought(config.rank, config.alpha, facts_in(folder))


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


def _must_be_signed(folder: Path, keys: AdapterKeys) -> None:
    """What is taken of it is what was signed; what else lies there is left there."""
    if not (folder / SIGNATURE).is_file():
        raise NotSigned(f"adapter {folder}: has no {SIGNATURE}, and RILLFOLD_ADAPTER_KEYS demands one. Sign it there.")
    with (folder / SIGNATURE).open("rb") as file:
        bundle = file.read(MAX_PAPER + 1)
    try:
        files = signed_files(bundle, keys.known).files
    except NotSigned as error:
        raise NotSigned(f"adapter {folder}: {error}. Add its public key to RILLFOLD_ADAPTER_KEYS.") from error
    for name in FILES:
        if files.get(name) != file_sha256(folder / name):
            raise NotSigned(f"adapter {folder}: {name} is not what was signed. Copy the folder whole.")
