"""`rillfold api`: the HTTP API."""

import asyncio
import socket
from contextlib import AbstractContextManager

import click
import uvicorn
from fastapi import FastAPI

from rillfold import wiring
from rillfold.api.app import create_app
from rillfold.embedded import ports
from rillfold.http.keys import ApiKeys
from rillfold.http.wire import wire
from rillfold.settings import Settings, from_env
from rillfold.workers.watched import listened

SHUTDOWN_SECONDS = 5
READY_SECONDS = 10.0


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
        app = create_app(services)
        config = uvicorn.Config(
            app,
            settings.api_host,
            settings.api_port,
            log_level="warning",
            # A change feed has no end of its own.
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            **wire(),
        )
        with _figures(app, settings):
            await Server(config).serve()


def _figures(app: FastAPI, settings: Settings) -> AbstractContextManager[str]:
    """On a port of their own: companies need not see what is counted."""
    loop = asyncio.get_running_loop()

    def stands() -> str | None:
        asked = asyncio.run_coroutine_threadsafe(app.state.standing.failing(), loop)
        try:
            failing = asked.result(READY_SECONDS)
        except TimeoutError:
            asked.cancel()
            return f"the API has not got to it in {READY_SECONDS:.0f} s"
        return None if not failing else ", ".join(f"the {name} {why}" for name, why in failing.items())

    return listened(settings, "api", stands, app.state.registry)
