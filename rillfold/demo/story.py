"""The whole story on one machine: the parts in order, each told, timed and named when it fails."""

import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rillfold.demo.stage import Stage
from rillfold.embedded import state
from schemas.errors import RillfoldError, Stop

MARK = "made-by-rillfold-demo"
"""A file in every folder that a demo may empty."""


class Part(NamedTuple):
    name: str
    title: str
    tell: Callable[[Stage], Awaitable[None]]


class PartFailed(Stop):
    """One part of the story did not come out."""

    def __init__(self, part: Part, cause: BaseException, logs: Path) -> None:
        self.part = part
        why = str(cause).removesuffix(".") or type(cause).__name__
        super().__init__(f"part {part.name!r} failed: {why}. The workers' logs lie in {logs}.")


async def tell(parts: Sequence[Part], stage: Stage) -> None:
    for number, part in enumerate(parts, 1):
        began = time.monotonic()
        stage.console.rule(f"[bold]{number}. {part.title}", align="left")
        try:
            await part.tell(stage)
        except (Exception, SystemExit) as error:
            if not isinstance(error, RillfoldError):
                stage.console.print_exception(show_locals=False, max_frames=6)
            raise PartFailed(part, error, stage.data_dir / "logs") from error
        stage.seconds[part.name] = time.monotonic() - began
        stage.console.print(f"[dim]{stage.seconds[part.name]:.1f} s[/]\n")


def fresh(data_dir: Path, console: Console) -> None:
    """Every telling begins with nothing: an earlier one that still runs is stopped, and its data goes."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        there = list(data_dir.iterdir())
    except OSError as error:
        raise Stop(f"{data_dir} cannot hold the demo ({error.strerror}): name another folder by --data-dir.") from error
    mark = data_dir / MARK
    if there and mark not in there:
        raise Stop(
            f"{data_dir} holds what no demo has made, and a demo begins with nothing: name another folder by "
            f"--data-dir, or remove that one."
        )
    running = state.read(data_dir)
    if running is not None:
        console.print(f"An earlier demo still runs on {data_dir}: stopping it.")
        state.stop(data_dir, running)
    mark.touch()
    for old in there:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        elif old != mark:
            old.unlink(missing_ok=True)
