"""The shell of every worker: its command, its log, its signals, who watches it, `ready`, and its exit code."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, NamedTuple

import click
from prometheus_client.registry import Collector

from rillfold.event_log import reached
from rillfold.processes import WORKERS
from rillfold.settings import Settings, from_env
from rillfold.workers.logging import install
from rillfold.workers.watched import watched
from schemas.errors import Retry
from streams.health.watch import Counts
from streams.health.watchman import EX_SOFTWARE, Look

Work = Coroutine[Any, Any, None]


class Working(NamedTuple):
    """A worker that is put together."""

    run: Callable[[Callable[[], None]], Work]
    """Calls what it is given when it works. Ends by an error, or when it is stopped."""
    sight: Look
    counts: Callable[[], Counts]
    more: Collector | None = None
    stop: Callable[[], object] | None = None
    """Lets it finish what is in hand. None: it is cancelled."""


Made = Callable[[Settings], AbstractAsyncContextManager[Working]]


def worker(kind: str, made: Made) -> click.Command:
    """`rillfold worker KIND`, until a signal ends it."""

    def main(settings: Settings, name: str) -> None:
        work = _work(made, settings, name)
        asyncio.run(work if WORKERS[kind].door else _until_signalled(work))

    main.__doc__ = made.__doc__
    return command(kind, main)


def command(kind: str, main: Callable[..., None], *options: click.Option) -> click.Command:
    def begin(**given: Any) -> None:
        install(given.get("log_level", "WARNING"))
        main(from_env(), **given)

    apart = f"Tells the {WORKERS[kind].several} apart."
    name = click.Option(["--name"], default=f"{kind}-1", show_default=True, help=apart)
    return click.Command(kind, callback=begin, params=[name, *options], help=main.__doc__)


@contextmanager
def world() -> Iterator[None]:
    """What only the world can put right ends the process by its name, with the code that asks to be started again."""
    try:
        yield
    except Retry as error:
        click.echo(f"rillfold: {error}", err=True)
        sys.exit(EX_SOFTWARE)


async def _work(made: Made, settings: Settings, name: str) -> None:
    access = reached(settings)
    async with made(settings) as working:
        if working.stop is not None:
            _on_signals(working.stop)
        with watched(settings, name, access, working.sight, working.counts, more=working.more):
            await working.run(lambda: click.echo("ready"))


async def _until_signalled(work: Work) -> None:
    task = asyncio.current_task()
    assert task is not None
    _on_signals(task.cancel)
    with suppress(asyncio.CancelledError):
        await work


def _on_signals(stop: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
