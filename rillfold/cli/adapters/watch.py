"""A run as its events tell it, for who waits for it: the curve of its loss, and how long it will take."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

import click
import msgspec

from projections.training_runs import ENDED, TRAINING_RUNS, Run
from rillfold.cli.terminal.live import phases
from rillfold.cli.terminal.plain import plain
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import TrainingProgressed, TrainingRequested
from streams.history.followed import NobodyTakes, followed
from streams.log.port import EventLog

INTERRUPTED = 130
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


class Watched(Run, frozen=True, kw_only=True):
    losses: tuple[tuple[int, float], ...] = ()
    """Step and loss, as far as they were said. A run that is taken up again says some of them again."""


def fold(state: Run, event: Event) -> Run:
    run = TRAINING_RUNS.fold(state, event)
    if run is state or not isinstance(run, Watched) or not isinstance(event, TrainingProgressed) or event.loss is None:
        return run
    before = tuple(point for point in run.losses if point[0] < event.step)
    return msgspec.structs.replace(run, losses=(*before, (event.step, event.loss)))


def initial(row: str) -> Run:
    company, _, run = row.partition("/")
    return Watched(company=company, run=run)


WATCHED = replace(TRAINING_RUNS, state=Watched, initial=initial, fold=fold)


async def until_ended(log: EventLog, names: TopicNames, request: TrainingRequested) -> Run:
    """Follows the run in the log, and shows how it goes."""
    nobody_takes = NobodyTakes(lambda line: click.echo(plain(line), err=True))
    with shown() as show:
        async for run in followed(log, names, request, WATCHED):
            nobody_takes.look(run)
            if run.status not in ENDED:
                assert isinstance(run, Watched)
                show(run)
    return run


@contextmanager
def shown() -> Iterator[Callable[[Watched], None]]:
    """On standard error: a bar with the curve on a terminal, and a line for whatever is new elsewhere."""
    if not sys.stderr.isatty():
        yield _line_by_line()
        return
    with phases() as tell:
        yield lambda run: tell(
            run.phase or run.status, run.step, run.steps, f"{figures(run)} {spark([loss for _, loss in run.losses])}"
        )


def _line_by_line() -> Callable[[Watched], None]:
    told = ""

    def tell(run: Watched) -> None:
        nonlocal told
        line = f"{run.phase} {run.step}/{run.steps} {figures(run)}".rstrip() if run.phase else run.status
        if line != told:
            click.echo(plain(line), err=True)
            told = line

    return tell


def figures(run: Run) -> str:
    """What is known of these."""
    known = (
        ("loss {:.3f}", run.loss),
        ("held out {:.3f}", run.held_out_loss),
        ("{:.0f} tokens/s", run.tokens_per_second),
        ("{:.0f} s left", run.seconds_left),
    )
    return ", ".join(form.format(figure) for form, figure in known if figure is not None)


def spark(values: Sequence[float], width: int = WIDTH) -> str:
    """One block for so many neighbours as it takes to fit; the highest is a whole one."""
    if not values:
        return ""
    parts = [values[n * len(values) // width : (n + 1) * len(values) // width] for n in range(width)]
    means = [sum(part) / len(part) for part in parts if part] if len(values) > width else list(values)
    low, high = min(means), max(means)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((mean - low) / (high - low) * top) if high > low else 0] for mean in means)


def leave(asked: Sequence[TrainingRequested]) -> NoReturn:
    """Who does not want to wait any more ends the watching alone."""
    words = [
        f"run {it.id} goes on: `rillfold runs cancel {it.id} --company {it.company}` takes it back." for it in asked
    ]
    click.echo(plain(f"rillfold: {' '.join(words) or 'nothing was asked for.'}"), err=True)
    sys.exit(INTERRUPTED)
