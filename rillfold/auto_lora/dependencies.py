"""What making an adapter needs of this machine, looked at one by one; each that is missing with how to get it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_workers.bases import files
from gpu_workers.bases.host import host_memory
from gpu_workers.errors import LlamaCppFailed
from gpu_workers.export.llama_server import PROGRAM, program
from rillfold.auto_lora.config import TrainingConfig
from rillfold.embedded.checks import Finding, is_installed, python
from rillfold.settings import from_env
from schemas.errors import RillfoldError

PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "jinja2", "numpy")
MEMORY, DISK = 2 << 30, 1 << 30
"""Of a small base model; a larger one asks for more."""
GIB = 2**30


class Checked(NamedTuple):
    """All findings, in their order."""

    findings: Sequence[Finding]

    @property
    def missing(self) -> list[Finding]:
        return [each for each in self.findings if each.state == "problem"]

    @property
    def ok(self) -> bool:
        return not self.missing


class DependencyChecker:
    """`check()` looks, and starts and fetches nothing."""

    def __init__(self, config: TrainingConfig | None = None, out: Path | str = "lora_adapters") -> None:
        self._config, self._out = config or TrainingConfig(), Path(out)

    def check(self) -> Checked:
        return Checked(tuple(self._findings()))

    def _findings(self) -> Iterator[Finding]:
        yield python()
        absent = [name for name in PACKAGES if not is_installed(name)]
        yield _packages(absent)
        yield _cuda(absent)
        yield _memory()
        yield _disk(self._out)
        yield _llama_cpp()
        yield self._base()
        if path := self._config.llama_cpp_model_path:
            yield _gguf(Path(path))

    def _base(self) -> Finding:
        where = self._config.base(from_env())
        try:
            files.look(where)
        except RillfoldError as error:
            return Finding("Base model", "problem", str(error).rstrip("."), "Name another with --model-path.")
        return Finding("Base model", "ok", where)


def _packages(absent: Sequence[str]) -> Finding:
    if absent:
        remedy = "Run `make`, or `pip install 'rillfold[gpu]'`."
        return Finding("Packages", "problem", f"{', '.join(absent)} not installed", remedy)
    return Finding("Packages", "ok", f"all {len(PACKAGES)} installed")


def _cuda(absent: Sequence[str]) -> Finding:
    if "torch" in absent:
        return Finding("CUDA", "note", "nobody can tell without torch")
    from gpu_workers.bases.device import Device

    device = Device.best()
    if device.kind != "cuda":
        remedy = (
            "A base of 135 million parameters learns on a CPU in minutes; for larger ones take a machine with a GPU."
        )
        return Finding("CUDA", "note", "no GPU here", remedy)
    return Finding("CUDA", "ok", f"{device.named()}, {(device.free() or 0) / GIB:.1f} GiB of its memory free")


def _memory() -> Finding:
    found = f"{host_memory() / GIB:.1f} GiB"
    if host_memory() < MEMORY:
        return Finding("Memory", "problem", found, f"{MEMORY / GIB:.0f} GiB are needed: take a larger machine.")
    return Finding("Memory", "ok", found)


def _disk(out: Path) -> Finding:
    folder = next(above for above in (out.absolute(), *out.absolute().parents) if above.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free for {out.absolute()}"
    if free < DISK:
        return Finding("Disk", "problem", found, f"Make room for {DISK / GIB:.0f} GiB, or name another folder: --out.")
    return Finding("Disk", "ok", found)


def _llama_cpp() -> Finding:
    if place := from_env().llama_cpp_path:
        try:
            return Finding("llama.cpp", "ok", str(program(place)))
        except LlamaCppFailed:
            remedy = f"Name the folder that holds {PROGRAM}, or unset the variable."
            return Finding("llama.cpp", "problem", f"LLAMA_CPP_PATH={str(place)!r} has no {PROGRAM}", remedy)
    if importlib.util.find_spec("xllamacpp"):
        return Finding("llama.cpp", "ok", "the package xllamacpp")
    remedy = "Training needs none. To run what comes of it there: `pip install xllamacpp`, or set LLAMA_CPP_PATH."
    return Finding("llama.cpp", "note", "not here", remedy)


def _gguf(file: Path) -> Finding:
    try:
        with file.open("rb") as opened:
            begins = opened.read(4)
    except OSError as error:
        return Finding("GGUF", "problem", f"{file}: {error.strerror}", "Correct llama_cpp_model_path.")
    if begins != b"GGUF":
        return Finding("GGUF", "problem", f"{file} is no GGUF file", "Correct llama_cpp_model_path.")
    return Finding("GGUF", "ok", str(file))
