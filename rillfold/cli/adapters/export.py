"""`rillfold adapters export` and `rillfold export-base`: an adapter and its base as files that others load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from rillfold.cli.terminal import live
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import FOLDER_OR_ADAPTER, folder_of
from rillfold.event_log import in_log
from rillfold.registry import find
from rillfold.settings import Settings, from_env
from rillfold.wiring import artifact_store

if TYPE_CHECKING:
    from gpu_workers.bases.files import Progress
    from projections.lora_adapters import Adapter
    from schemas.topics import TopicNames
    from streams.log.port import EventLog


class ToExport(NamedTuple):
    folder: Path
    name: str
    """company/role@version; of a folder none."""
    dataset_sha256: str
    base: str | None
    """The base that it was trained on, where the log says so."""


@click.command()
@click.argument("adapter", type=FOLDER_OR_ADAPTER, metavar="FOLDER|COMPANY/ROLE[@VERSION]")
@click.option("--format", "form", type=click.Choice(["gguf", "peft"]), default="gguf", show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder to write to.")
@click.option("--base", help="A name of RILLFOLD_BASE_MODELS. Default: the adapter's, or RILLFOLD_BASE_MODEL.")
@as_json()
def export(adapter: str, form: str, out: Path, base: str | None, as_json: bool) -> None:
    """Write ADAPTER to a folder: adapter.gguf for llama.cpp, or the two files of PEFT for everybody else."""
    settings = from_env()
    wanted = _wanted(adapter, settings)
    _settle()
    if form == "peft":
        from gpu_workers.export.adapter import export_peft

        files = export_peft(wanted.folder, out)
    else:
        files = [_gguf(wanted, out, base, settings)]
    _tell(files, as_json)


@click.command("export-base")
@click.argument("base", required=False, metavar="[BASE]")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder to write to.")
@as_json()
def export_base(base: str | None, out: Path, as_json: bool) -> None:
    """Write BASE, a name of RILLFOLD_BASE_MODELS or a folder, as OUT/BASE-F32.gguf: with tokenizer and template."""
    settings = from_env()
    name = settings.base_name(base)
    _settle()
    from gpu_workers.bases.files import name_of
    from gpu_workers.export import base_model as exported

    file = out / f"{name_of(name)}-F32.gguf"
    with _progress() as tell:
        exported.export_base(settings.bases().get(name, name), settings.cache_dir, file, tell, name_of(name))
    _tell([file], as_json)


def _wanted(name: str, settings: Settings) -> ToExport:
    from gpu_workers.adapters.store import must_hold_files

    if folder := folder_of(name):
        must_hold_files(folder)  # before what takes long is loaded
        return ToExport(folder, "", "", None)
    from gpu_workers.adapters.origin import fetched

    row = in_log(lambda log, names: _ready(log, names, name))
    place, _facts = fetched(artifact_store(settings), row.sha256, row.company)
    return ToExport(place, f"{row.adapter}@{row.version}", row.manifest, row.base_model)


async def _ready(log: EventLog, names: TopicNames, name: str) -> Adapter:
    return await find(log, names, name)


def _gguf(wanted: ToExport, out: Path, told: str | None, settings: Settings) -> Path:
    from gpu_workers.adapters.origin import facts_in
    from gpu_workers.export.adapter import GGUF, AdapterOrigin, ReadyBase, export_gguf

    said = facts_in(wanted.folder)
    name = settings.base_name(told or wanted.base or (said.base_model if said else None))
    with _progress() as tell:
        where = settings.bases().get(name, name)
        base = ReadyBase.of(name, where, settings.cache_dir, tell, named=told is not None)
        return export_gguf(wanted.folder, base, out / GGUF, AdapterOrigin(wanted.name, wanted.dataset_sha256))


@contextmanager
def _progress() -> Iterator[Progress]:
    with live.phases() as tell:
        yield lambda what, done, of: tell(what, done, of, "")


def _settle() -> None:
    from gpu_workers.bases.before_torch import settle

    settle()


def _tell(files: list[Path], as_json: bool) -> None:
    from gpu_workers.bases.files import file_sha256

    facts = {str(file): file_sha256(file) for file in files}
    if as_json:
        say_json({"files": facts})
        return
    for file, sha256 in facts.items():
        say({"wrote": file, "sha256": sha256})
