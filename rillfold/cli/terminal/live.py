"""A live line on standard error for work that takes longer than a second; silent where nobody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int, int], None]


@contextmanager
def line(what: str) -> Iterator[Tell]:
    """Yields (done, of) -> None."""
    with phases() as tell:
        yield lambda done, of: tell(what, done, of, "")


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, str], None]]:
    """Yields (phase, done, of, note) -> None: one bar, which a new phase takes over."""
    if not sys.stderr.isatty():
        yield lambda _phase, _done, _of, _note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None, note="")
        shown = ""

        def tell(phase: str, done: int, of: int, note: str) -> None:
            nonlocal shown
            if phase != shown:
                bars.reset(task, description=phase)
                shown = phase
            bars.update(task, completed=done, total=of, note=note)

        yield tell
