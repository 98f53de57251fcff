"""The log that a benchmark runs on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rillfold.embedded.stack import running
from rillfold.settings import from_env


@contextmanager
def log(bench: str) -> Iterator[str]:
    """The one that the settings name, or an embedded one for this run."""
    settings = from_env()
    if settings.bootstrap_servers is not None:
        yield settings.bootstrap_servers
        return
    with (
        TemporaryDirectory(prefix=f"bench-{bench}-") as folder,
        running(Path(folder), postgres=False, settings=settings) as endpoints,
    ):
        yield endpoints.bootstrap_servers
