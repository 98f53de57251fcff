"""`rillfold worker sink`: the changelogs into Postgres."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rillfold.app.installed import installed
from rillfold.embedded.state import attach
from rillfold.event_log import event_log
from rillfold.settings import Settings
from rillfold.workers.run import Working, worker
from schemas.errors import Stop
from streams.owner.garbage import keep_garbage_rare
from streams.read_model.postgres import PostgresSink
from streams.read_model.sink import Follower
from streams.state.prepare import prepare


@asynccontextmanager
async def _made(settings: Settings) -> AsyncIterator[Working]:
    """Keep Postgres up to date with the projections. Several may run: they share the partitions."""
    dsn = attach(settings).postgres_dsn
    if dsn is None:
        raise Stop(
            "No database is named: start one with `rillfold up`, or set RILLFOLD_PROVIDER=external, "
            "RILLFOLD_BOOTSTRAP_SERVERS and RILLFOLD_POSTGRES_DSN."
        )
    projections = list(installed(settings).projections.values())
    names, schema = settings.topic_names(), settings.read_model()
    async with event_log(settings, "rillfold-sink") as log, PostgresSink(dsn, projections, schema) as kept:
        await prepare(log, projections, names)
        keep_garbage_rare()
        follower = Follower(kept, projections, names.prefix)

        async def run(ready: Callable[[], None]) -> None:
            ready()
            await follower.run(log, f"{names.prefix}rillfold-sink-{schema}")

        yield Working(run, follower.sight, follower.counts)


sink = worker("sink", _made)
