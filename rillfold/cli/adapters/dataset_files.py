"""A dataset in a folder: written beside, moved when it is whole, and held against its manifest."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import msgspec

from processors.dataset.lessons import line_of, row_of
from processors.dataset.noticed import Noticed
from processors.dataset.selection import Selection
from processors.dataset.taught import chosen, topics_of
from processors.dataset.turns import Manifest, RuleUsed, canonical
from processors.training.admit import wrong_range
from rillfold.app.installed import installed
from rillfold.cli.terminal import live
from rillfold.event_log import in_log
from rillfold.settings import from_env
from rillfold.wiring import places
from schemas.errors import Stop
from schemas.topics import TopicNames
from schemas.training import OffsetRange
from streams.history import replay
from streams.log.port import EventLog

ROWS, MANIFEST, PROVENANCE, PARQUET = "rows.jsonl", "manifest.json", "provenance.jsonl", "rows.parquet"
FILES = (ROWS, PROVENANCE, PARQUET, MANIFEST)


class Altered(Stop):
    """A dataset that is not what its manifest says."""


class InTheWay(Stop):
    """Another dataset lies where this one should."""


class BadRanges(Stop):
    """Offsets that no log can have."""


class DatasetWish(NamedTuple):
    """What a dataset is to be made of. No ranges: everything up to now."""

    company: str
    ranges: tuple[OffsetRange, ...]
    rule: int
    select: Selection
    tools_from: tuple[OffsetRange, ...] | None
    used: tuple[RuleUsed, ...] = ()
    """Of applications' rules: whose code is to be as it was."""


def wish_of(manifest: Manifest) -> DatasetWish:
    select = manifest.select or Selection()
    used = manifest.rules or ()
    return DatasetWish(manifest.company, manifest.ranges, manifest.rule_version, select, manifest.tools_from, used)


@contextmanager
def draft(out: Path, parquet: bool) -> Iterator[Path]:
    """A folder in that folder, gone afterwards; what was there stays whole meanwhile."""
    if parquet:
        from rillfold.cli.adapters import parquet as writer

        writer.must_be_there()
    was_there = out.is_dir()
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=".dataset-", dir=out))
    (folder / PARQUET).touch() if parquet else None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not was_there:
            with suppress(OSError):  # holds the dataset, if it came to one
                out.rmdir()


class Built(NamedTuple):
    manifest: Manifest
    noticed: Noticed | None
    """Rules 1 and 2 notice nothing."""


def build(wish: DatasetWish, folder: Path) -> Built:
    noticed: list[Noticed] = []
    rules = installed(from_env()).rules
    chosen(wish.select.rules, rules, wish.used)
    beside = topics_of(wish.select.rules, rules)

    async def built(log: EventLog, names: TopicNames) -> Manifest:
        partitions = await replay.partitions_of(log, names, wish.rule, beside)
        if wrong := wrong_range(wish.ranges, partitions) or wrong_range(wish.tools_from or (), partitions):
            raise BadRanges(f"{wrong} See `rillfold topics list` for what is there.")
        ranges = wish.ranges or await replay.everything_up_to_now(log, names, wish.rule, beside)
        with live.line("replay") as tell:
            return await replay.build(
                log, names, wish.company, ranges, folder / ROWS, tell,
                rule=wish.rule, select=wish.select, tools_from=wish.tools_from, provenance=folder / PROVENANCE,
                on_noticed=noticed.append, places=places(from_env()), rules=rules,
            )  # fmt: skip

    return Built(in_log(built), noticed[0] if noticed else None)


def settle(made: Path, out: Path, manifest: Manifest, *, force: bool) -> None:
    """Moves the files to their places, the manifest last."""
    if not force:
        _must_be_free(out, manifest)
    if (made / PARQUET).exists():
        from rillfold.cli.adapters import parquet

        parquet.write(made / ROWS, made / PARQUET)
    (made / MANIFEST).write_bytes(canonical(manifest) + b"\n")
    for name in FILES:
        if (made / name).exists():
            (made / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def _must_be_free(out: Path, manifest: Manifest) -> None:
    lying = [name for name in FILES if (out / name).exists()]
    if not lying:
        return
    there = read(out).sha256 if MANIFEST in lying else "without a manifest"
    if there != manifest.sha256:
        raise InTheWay(f"{out} holds another dataset ({there}). Name another folder, or give --force.")


def read(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: Exception) -> Altered:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return Altered(f"{path}: {why}. Build the dataset again.")


def check_rows(folder: Path, manifest: Manifest, again: Path | None = None) -> None:
    """Names the first row that is not what the log gives `again`, or, where that is not known, is not canonical."""
    path = folder / ROWS
    try:
        lines = path.read_bytes()
    except OSError as error:
        raise _unread(path, error) from error
    if hashlib.sha256(lines).hexdigest() != manifest.rows_sha256:
        raise Altered(_first_altered(path, lines.splitlines(keepends=True), manifest, again))
    if (folder / PARQUET).exists():
        from rillfold.cli.adapters import parquet

        if parquet.sha256(folder / PARQUET) != manifest.rows_sha256:
            raise Altered(f"{folder / PARQUET} does not hold the rows of {ROWS}. Build the dataset again.")


def check_again(folder: Path, manifest: Manifest, made: Path, again: Manifest) -> None:
    """Against what the log gives now. Where that is not what the manifest says, the files are held against it alone."""
    same = again.rows_sha256 == manifest.rows_sha256
    check_rows(folder, manifest, made / ROWS if same else None)
    if again == manifest:
        _check_provenance(folder / PROVENANCE, made / PROVENANCE)
        return
    number = first_other(folder / ROWS, made / ROWS)
    where = "" if number is None else f" The first row that differs is line {number} of {ROWS}."
    raise Altered(f"{folder}: the log gives manifest {again.sha256} now, the folder has {manifest.sha256}.{where}")


def _check_provenance(path: Path, again: Path) -> None:
    """No manifest holds it: it says where what is said of rows stands, and the rows are the same without."""
    if not again.exists():
        return
    try:
        number = first_other(path, again)
    except OSError as error:
        raise _unread(path, error) from error
    if number is not None:
        raise Altered(f"{path}: line {number} is not what the log gives. Build the dataset again.")


def _first_altered(path: Path, lines: Sequence[bytes], manifest: Manifest, again: Path | None) -> str:
    odd = (number for number, line in enumerate(lines, start=1) if not _is_canonical(line))
    number = next(odd, None) if again is None else first_other(path, again)
    if number is not None:
        return f"{path}: line {number} was altered. Build the dataset again."
    told = f"{path}: its sha256 is not {manifest.rows_sha256}: rows were altered, added or taken away."
    return told if again else f"{told} Where the log still gives it, `verify` without --offline names the first."


def _is_canonical(line: bytes) -> bool:
    try:
        return line_of(row_of(line)) == line
    except ValueError:
        return False


def first_other(path: Path, again: Path) -> int | None:
    """The number of the first line that two files do not share; None where they are the same."""
    with path.open("rb") as ours, again.open("rb") as theirs:
        pairs = enumerate(zip_longest(ours, theirs), start=1)
        return next((number for number, (one, other) in pairs if one != other), None)
