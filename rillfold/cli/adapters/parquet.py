"""Rows of rule 3 as Parquet. Arguments and tools stay JSON text: Arrow would give every call the others' parameters."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from processors.dataset.lessons import Lesson, line_of, row_of
from schemas.errors import Stop

GROUP = 1_000
"""Rows that are in memory at once."""


class NoArrow(Stop):
    """Parquet was asked for where nothing can write it."""


def must_be_there() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise NoArrow("Parquet is written by pyarrow, which is not installed here: pip install pyarrow.") from error


def write(rows: Path, target: Path) -> None:
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    schema = _schema()
    with rows.open("rb") as lines, ParquetWriter(target, schema) as out:
        while group := list(islice(lines, GROUP)):
            out.write_table(Table.from_pylist([msgspec.to_builtins(row_of(line)) for line in group], schema))


def lines(path: Path) -> Iterator[bytes]:
    """The very lines that it was made of."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for group in file.iter_batches(GROUP):
            for row in group.to_pylist():
                yield line_of(msgspec.convert(row, Lesson))


def sha256(path: Path) -> str | None:
    """Of those lines; None where it is no file of rows."""
    must_be_there()
    from pyarrow import ArrowException

    digest = hashlib.sha256()
    try:
        for line in lines(path):
            digest.update(line)
    except (ArrowException, ValueError, msgspec.ValidationError):
        return None
    return digest.hexdigest()


def _schema() -> Any:
    import pyarrow as pa

    call = pa.struct([("name", pa.string()), ("arguments", pa.string())])
    turn = [("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call)), ("name", pa.string())]
    message = pa.struct(turn)
    return pa.schema(
        [
            ("agent", pa.string()),
            ("story", pa.string()),
            ("turn", pa.int64()),
            ("held_out", pa.bool_()),
            ("prompt", pa.list_(message)),
            ("answer", message),
            ("rejected", message),
            ("good", pa.bool_()),
            ("tools", pa.string()),
        ]
    )
