"""An artifact as it was when it was verified: whoever may write to its store could change a file meanwhile."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory

from gpu_workers.adapters.store import FILES, MANIFEST, MAX_BYTES, Facts, must_be_exact, verify
from gpu_workers.errors import ArtifactRefused


@contextmanager
def own_copy(folder: Path, sha256: str, company: str | None = None) -> Iterator[tuple[Path, Facts]]:
    """A folder that nobody else writes to, with what is in `folder` by now, and verified: what is read in here is that.
    Whatever of it is refused is told of `folder`."""
    must_be_exact(folder)
    with TemporaryDirectory(prefix="rillfold-adapter-") as made:
        own = Path(made)
        try:
            for name in (*FILES, MANIFEST):
                _copy(folder / name, own / name, MAX_BYTES[name])
            yield own, verify(own, sha256, company)
        except ArtifactRefused as error:
            raise ArtifactRefused(str(error).replace(made, str(folder))) from error


def _copy(path: Path, to: Path, most: int) -> None:
    """No link is followed, and nothing is waited for that is no file."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file, to.open("wb") as own:
        told = os.fstat(file.fileno())
        if not S_ISREG(told.st_mode) or told.st_size > most:
            raise ArtifactRefused(f"adapter {path}: is no file, or larger than {most} bytes.")
        shutil.copyfileobj(file, own, 1 << 20)
