"""`rillfold worker serve`: one process, one batch, two doors: the inference-request topic and /v1 over HTTP."""

from __future__ import annotations

import asyncio

import click

from rillfold import wiring
from rillfold.cli.serving import Door
from rillfold.settings import Settings, from_env


@click.command()
def serve() -> None:
    """Answer requests of the log and of HTTP with the base model and every adapter that the log says is ready."""
    asyncio.run(_run(from_env()))


async def _run(settings: Settings) -> None:
    async with wiring.engine(settings) as engine, wiring.inference(settings, engine) as worker:
        door = Door(engine, settings.serve_host, settings.serve_port)
        await door.beside(worker.run(ready=lambda: click.echo("ready")))
