"""`rillfold worker serve`: one process, one batch, two doors: the inference-request topic and /v1 over HTTP."""

from __future__ import annotations

import asyncio

import click

from rillfold import wiring
from rillfold.embedded.state import attach
from rillfold.settings import Settings, from_env
from rillfold.v1.door import EngineMetrics
from rillfold.workers.beside import Door, world
from rillfold.workers.logging import install
from rillfold.workers.watched import watched


@click.command()
@click.option("--name", default="serve-1", show_default=True, help="Tells the serving workers of a data folder apart.")
def serve(name: str) -> None:
    """Answer requests of the log and of HTTP with the base model and every adapter that the log says is ready."""
    install()
    with world():
        asyncio.run(_run(from_env(), name))


async def _run(settings: Settings, name: str) -> None:
    servers = attach(settings).bootstrap_servers
    async with wiring.engine(settings) as engine, wiring.inference(settings, engine) as worker:
        door, figures = Door(engine, settings), EngineMetrics(engine)
        with watched(settings, name, servers, worker.standing.sight, worker.counts, more=figures):
            await door.beside(worker.run(ready=lambda: click.echo("ready")))
