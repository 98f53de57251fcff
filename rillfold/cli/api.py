"""`rillfold api`: the HTTP API."""

from __future__ import annotations

import asyncio
import socket

import click
import uvicorn

from rillfold import wiring
from rillfold.embedded import ports
from rillfold.http.app import create_app
from rillfold.http.keys import ApiKeys
from rillfold.settings import Settings, from_env

SHUTDOWN_SECONDS = 5


class Server(uvicorn.Server):
    """Says `ready` when it answers, as every worker does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo("ready")


@click.command()
def api() -> None:
    """Serve the HTTP API until Ctrl-C: produce, query, automate. Its documentation stands at /docs."""
    settings = from_env()
    ports.must_be_free(settings.api_port, "RILLFOLD_API_PORT", settings.api_host)
    key = ApiKeys.of(settings.data_dir).ensure_admin()
    click.echo(f"http://{settings.api_host}:{settings.api_port}  (the admin key lies in {key})")
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with wiring.services(settings) as services:
        config = uvicorn.Config(
            create_app(services),
            settings.api_host,
            settings.api_port,
            log_level="warning",
            access_log=False,
            # A change feed has no end of its own.
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        await Server(config).serve()
