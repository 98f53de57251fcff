"""A file beside its place, moved there once all of it is on the disk: whoever looks sees the old one or the new."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpu_workers.errors import ExportRefused


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write to what this gives. Nothing stays of it where that fails."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _on_the_disk(draft)
        draft.replace(path)
        _on_the_disk(path.parent)
    except OSError as error:
        raise ExportRefused(
            f"{path}: cannot be written: {error}. Give a folder that this user may write, on a disk with room."
        ) from error
    finally:
        with suppress(OSError):  # there is none, or not even its folder
            draft.unlink()


def _on_the_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
