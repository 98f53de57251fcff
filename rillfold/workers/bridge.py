"""`rillfold worker bridge`: calls of tools, out to the companies' APIs and back."""

from __future__ import annotations

import asyncio
import signal

import click

from rillfold import wiring
from rillfold.embedded.state import attach
from rillfold.settings import Settings, from_env
from rillfold.workers.logging import install
from rillfold.workers.watched import watched


@click.command()
@click.option("--name", default="bridge-1", show_default=True, help="Tells the bridges of a data folder apart.")
def bridge(name: str) -> None:
    """Call the companies' tools. The only process that opens their credentials."""
    install()
    asyncio.run(_run(from_env(), name))


async def _run(settings: Settings, name: str) -> None:
    servers = attach(settings).bootstrap_servers
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with wiring.bridge(settings) as bridge:
        with watched(settings, name, servers, bridge.standing.sight, bridge.counts):
            await bridge.run(stop, joined=lambda: click.echo("ready"))
