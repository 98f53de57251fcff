"""`rillfold worker train`: takes training requests from the log, one at a time."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import click

from rillfold import wiring
from rillfold.embedded.state import attach
from rillfold.settings import Settings, from_env
from rillfold.workers.logging import install
from rillfold.workers.watched import watched
from schemas.errors import RillfoldError
from streams.health.watchman import EX_SOFTWARE

log = logging.getLogger(__name__)


@click.command()
@click.option("--name", default="train-1", show_default=True, help="Tells the trainers of a data folder apart.")
def train(name: str) -> None:
    """Train adapters as requests come in. Several of these share the work by company."""
    install()
    asyncio.run(_run(from_env(), name))


async def _run(settings: Settings, name: str) -> None:
    servers = attach(settings).bootstrap_servers
    async with wiring.trainer(settings) as trainer:
        work = asyncio.create_task(trainer.run(ready=lambda: click.echo("ready")))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with watched(settings, name, servers, trainer.standing.sight, trainer.counts):
            await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled() and (error := work.exception()):
            log.critical("The training worker ends: %s", error, exc_info=not isinstance(error, RillfoldError) and error)
            sys.exit(EX_SOFTWARE)
