"""`rillfold worker sink`: the changelogs into Postgres."""

from __future__ import annotations

import asyncio
import signal

import click

from projections.catalog import PROJECTIONS
from rillfold.embedded.state import attach
from rillfold.event_log import event_log
from rillfold.settings import Settings, from_env
from rillfold.workers.logging import install
from rillfold.workers.watched import watched
from schemas.errors import Stop
from streams.owner.app import prepare
from streams.owner.garbage import keep_garbage_rare
from streams.read_model.postgres import PostgresSink
from streams.read_model.sink import Follower


@click.command()
@click.option("--name", default="sink-1", show_default=True, help="Tells the sinks of a data folder apart.")
def sink(name: str) -> None:
    """Keep Postgres up to date with the projections. Several may run: they share the partitions."""
    settings = from_env()
    endpoints = attach(settings)
    if endpoints.postgres_dsn is None:
        raise Stop(
            "No database is named: start one with `rillfold up`, or set RILLFOLD_PROVIDER=external, "
            "RILLFOLD_BOOTSTRAP_SERVERS and RILLFOLD_POSTGRES_DSN."
        )
    install()
    asyncio.run(_follow(settings, endpoints.bootstrap_servers, endpoints.postgres_dsn, name))


async def _follow(settings: Settings, servers: str, dsn: str, name: str) -> None:
    names, schema, projections = settings.topic_names(), settings.read_model(), list(PROJECTIONS.values())
    following = asyncio.current_task()
    assert following is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, following.cancel)
    try:
        log = event_log(settings, "rillfold-sink")
        async with log, PostgresSink(dsn, projections, schema) as kept:
            await prepare(log, projections, names)
            keep_garbage_rare()
            click.echo("ready")
            follower = Follower(kept, projections, names.prefix)
            with watched(settings, name, servers, follower.sight, follower.counts):
                await follower.run(log, f"{names.prefix}rillfold-sink-{schema}")
    except asyncio.CancelledError:
        return
