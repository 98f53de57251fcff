"""A live line on standard error for work that takes longer than a second; silent where nobody watches.

Work of many minutes says on a pipe too that it goes on.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic

import click

from rillfold.cli.terminal.plain import plain

Tell = Callable[[int, int], None]
TellPhase = Callable[[str, int, int, str], None]
SILENCE = 8.0
"""Who reads a pipe or a log hears of it at least so often."""


@contextmanager
def line(what: str) -> Iterator[Tell]:
    """Yields (done, of) -> None."""
    with phases() as tell:
        yield lambda done, of: tell(what, done, of, "")


@contextmanager
def phases(piped: bool = False) -> Iterator[TellPhase]:
    """Yields (phase, done, of, note) -> None: one bar, which a new phase takes over. `piped`: a line now and then where
    no terminal is."""
    if not sys.stderr.isatty():
        with _now_and_then() if piped else nullcontext(_untold) as told:
            yield told
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


def _untold(_phase: str, _done: int, _of: int, _note: str) -> None:
    """Nobody watches."""


@contextmanager
def _now_and_then() -> Iterator[TellPhase]:
    doing, since, over = "at work", monotonic(), threading.Event()

    def tell(phase: str, done: int, of: int, note: str) -> None:
        nonlocal doing
        doing = f"{phase} {done}/{of}{note and f', {note}'}"

    def watch() -> None:
        while not over.wait(SILENCE):
            click.echo(plain(f"… {doing}, {monotonic() - since:.0f} s so far"), err=True)

    watching = threading.Thread(target=watch, name="signs-of-life", daemon=True)
    watching.start()
    try:
        yield tell
    finally:
        over.set()
        watching.join()
