"""`rillfold up` and `rillfold down`."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import click
import msgspec
from rich.console import Console

from rillfold.cli.bars import download_bars
from rillfold.embedded import state
from rillfold.embedded.errors import StackError
from rillfold.embedded.stack import Ports, Stack, serving
from rillfold.settings import from_env

LOOK = 0.5  # seconds between two looks at the servers


@click.command()
@click.option("--no-postgres", is_flag=True, help="Kafka alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when ready.")
def up(no_postgres: bool, as_json: bool) -> None:
    """Start Kafka and Postgres here and keep them until Ctrl-C."""
    settings, begun = from_env(), time.monotonic()
    if settings.provider != "embedded":
        raise StackError(
            f"RILLFOLD_PROVIDER={settings.provider}: that stack is not ours to start. Unset it, or start it there."
        )
    wanted = Ports(settings.kafka_port, settings.postgres_port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # A stop that was asked for is no failure, at whatever moment it comes.
    with (
        suppress(KeyboardInterrupt),
        download_bars() as progress,
        serving(settings.data_dir, wanted, settings, not no_postgres, progress) as stack,
    ):
        _tell(stack, settings.data_dir.resolve(), time.monotonic() - begun, as_json)
        _watch(stack)


def _tell(stack: Stack, folder: Path, seconds: float, as_json: bool) -> None:
    if as_json:
        told = {"endpoints": stack.endpoints, "data_dir": str(folder), "ready_seconds": round(seconds, 2)}
        click.echo(msgspec.json.encode(told).decode())
        return
    console = Console(highlight=False)
    console.print(f"[green]Ready[/] in {seconds:.1f} s, data in {folder}")
    console.print(f"  Kafka     {stack.endpoints.bootstrap_servers}")
    if stack.endpoints.postgres_dsn:
        console.print(f"  Postgres  {stack.endpoints.postgres_dsn}")
    console.print("Ctrl-C stops it; the data stays.")


def _watch(stack: Stack) -> None:
    """Until Ctrl-C or SIGTERM, which come as KeyboardInterrupt."""
    while (ended := stack.ended()) is None:
        time.sleep(LOOK)
    raise ended.failure("ended by itself")


@click.command()
def down() -> None:
    """Stop the stack that runs on this data folder."""
    settings = from_env()
    found = state.read(settings.data_dir)
    if found is None:
        raise StackError(f"No stack is running on {settings.data_dir.resolve()}.")
    state.stop(settings.data_dir, found)
    click.echo("Stopped; the data stays.")
