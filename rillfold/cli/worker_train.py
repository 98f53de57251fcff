"""`rillfold worker train`: takes training requests from the log, one at a time."""

from __future__ import annotations

import asyncio
import signal

import click

from rillfold import wiring
from rillfold.settings import Settings, from_env


@click.command()
def train() -> None:
    """Train adapters as requests come in. Several of these share the work by company."""
    asyncio.run(_run(from_env()))


async def _run(settings: Settings) -> None:
    async with wiring.trainer(settings) as trainer:
        work = asyncio.create_task(trainer.run(ready=lambda: click.echo("ready")))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled() and (error := work.exception()):
            raise error
