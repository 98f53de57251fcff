"""`rillfold dataset`: what a training run would learn from, as files, with the proof that they are the log's."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from processors.dataset.turns import Manifest, canonical, parse_row, row
from rillfold.cli.terminal import live
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.event_log import in_log
from schemas.errors import Stop
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.history import replay
from streams.log.port import EventLog

ROWS, MANIFEST = "rows.jsonl", "manifest.json"


class Altered(Stop):
    """A dataset that is not what its manifest says."""


@click.group()
def dataset() -> None:
    """Build training data from the log, or prove that files are what the log gives."""


@dataset.command()
@click.option("--company", required=True)
@click.option("--range", "ranges", multiple=True, metavar="PARTITION:START:STOP", help="Default: everything up to now.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the files.")
@as_json("The manifest as JSON.")
def build(company: str, ranges: Sequence[str], out: Path, as_json: bool) -> None:
    """Replay exact offset ranges of company-data into rows and their manifest."""
    out.mkdir(parents=True, exist_ok=True)
    manifest = _built(company, [_range(text) for text in ranges], out / ROWS)
    (out / MANIFEST).write_bytes(canonical(manifest) + b"\n")
    _tell(manifest, as_json)


@dataset.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--offline", is_flag=True, help="Look at the files alone, not at the log.")
@as_json("The manifest as JSON.")
def verify(folder: Path, offline: bool, as_json: bool) -> None:
    """Check the rows against the manifest, then build them again from the log and compare."""
    manifest = _read(folder)
    _check_rows(folder, manifest)
    if not offline:
        again = _built(manifest.company, manifest.ranges, folder / f".{ROWS}.again")
        (folder / f".{ROWS}.again").unlink()
        if again != manifest:
            raise Altered(f"{folder}: the log gives manifest {again.sha256} now, the folder has {manifest.sha256}.")
    _tell(manifest, as_json)


def _built(company: str, ranges: Sequence[OffsetRange], rows: Path) -> Manifest:
    async def built(log: EventLog, names: TopicNames) -> Manifest:
        wanted = ranges or await replay.everything_up_to_now(log, names)
        with live.line("replay") as tell:
            return await replay.build(log, names, company, wanted, rows, tell)

    return in_log(built)


def _range(text: str) -> OffsetRange:
    try:
        partition, start, stop = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not PARTITION:START:STOP, such as 0:0:1200") from error
    return OffsetRange(topic=replay.DATA_TOPIC, partition=partition, start=start, stop=stop)


def _read(folder: Path) -> Manifest:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Altered(f"{folder / MANIFEST}: {error}. Build the dataset again.") from error


def _check_rows(folder: Path, manifest: Manifest) -> None:
    """Names the first row that is not what the canonical form of its own content says, where there is one."""
    path = folder / ROWS
    try:
        lines = path.read_bytes()
    except OSError as error:
        raise Altered(f"{path}: {error}. Build the dataset again.") from error
    if hashlib.sha256(lines).hexdigest() == manifest.rows_sha256:
        return
    for number, line in enumerate(lines.splitlines(keepends=True), start=1):
        try:
            if row(parse_row(line)) == line:
                continue
        except ValueError:
            pass
        raise Altered(f"{path}: line {number} was altered. Build the dataset again.")
    raise Altered(f"{path}: its sha256 is not {manifest.rows_sha256}: rows were altered, added or taken away.")


def _tell(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        say_json({"sha256": manifest.sha256, "manifest": manifest})
        return
    click.echo(f"manifest {manifest.sha256}")
    click.echo(f"rows     {manifest.rows_sha256}")
    click.echo(f"{manifest.trained} to train on, {manifest.held_out} held out, from {manifest.records} records")
    for part in manifest.ranges:
        click.echo(f"  {part.topic}/{part.partition} [{part.start}, {part.stop})")
