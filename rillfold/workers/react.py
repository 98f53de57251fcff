"""`rillfold worker react`: what applications do when an event comes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from rillfold.app.installed import installed
from rillfold.event_log import event_log
from rillfold.settings import Settings
from rillfold.workers.run import Working, worker, world
from schemas.errors import Stop
from streams.fold.failpoint import FailPoint
from streams.react.reactor import Reactor
from streams.react.together import counts_of, letter_writers, run_all, sight_of


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Run the reactions of applications. Several of these share the work by partition."""
    there = installed(settings)
    if not (reactions := there.reactions):
        raise Stop(
            "No application here has a reaction: declare one by @app.reaction() (docs/app.md), and name its module by "
            "RILLFOLD_APP or install its package."
        )
    names, failpoint = settings.topic_names(), FailPoint(settings.failpoint)
    async with event_log(settings, "rillfold-react") as log:
        writers = letter_writers(reactions, {topic for each in there.projections.values() for topic in each.topics})
        reactors = [Reactor(log, names, each, failpoint=failpoint, alone=each in writers) for each in reactions]

        async def run(ready: Callable[[], None]) -> None:
            with world():
                await run_all(reactors, ready)

        yield Working(run, partial(sight_of, reactors), partial(counts_of, reactors))


react = worker("react", _made)
