"""`rillfold worker bridge`: calls of tools, out to the companies' APIs and back."""

from __future__ import annotations

import asyncio
import signal

import click

from rillfold import wiring
from rillfold.settings import Settings, from_env


@click.command()
def bridge() -> None:
    """Call the companies' tools. The only process that opens their credentials."""
    asyncio.run(_run(from_env()))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with wiring.bridge(settings) as bridge:
        await bridge.run(stop, joined=lambda: click.echo("ready"))
