"""Progress bars, on standard error so that standard output stays for results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from rillfold.embedded import jars


@contextmanager
def download_bars() -> Iterator[jars.Progress]:
    """A bar for each file while it comes; nothing at all when nothing has to come, or nobody looks."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

    @contextmanager
    def one(filename: str, size: int) -> Iterator[Callable[[int], None]]:
        bars.start()
        task = bars.add_task(filename, total=size)
        yield lambda count: bars.advance(task, count)
        bars.remove_task(task)
        if not bars.tasks:
            bars.stop()

    try:
        yield one
    finally:
        bars.stop()
