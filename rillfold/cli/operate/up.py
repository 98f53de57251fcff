"""`rillfold up` and `rillfold down`."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from rillfold.app.installed import installed
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.bars import download_bars
from rillfold.embedded import ports, state
from rillfold.embedded.errors import StackError
from rillfold.embedded.stack import Stack, serving
from rillfold.event_log import in_log
from rillfold.processes import doors, started
from rillfold.settings import from_env
from rillfold.workers.crew import Crew, at_work
from streams.log.kafka import admin

LOOK = 0.5  # seconds between two looks at the servers


@click.command()
@click.option("--workers", is_flag=True, help="Create the topics, and start all workers and the API as well.")
@click.option("--no-postgres", is_flag=True, help="Kafka alone.")
@as_json("Print one JSON object when ready.")
def up(workers: bool, no_postgres: bool, as_json: bool) -> None:
    """Start Kafka and Postgres here and keep them until Ctrl-C."""
    settings, begun = from_env(), time.monotonic()
    if settings.provider != "embedded":
        raise StackError(
            f"RILLFOLD_PROVIDER={settings.provider}: that stack is not ours to start. Unset it, or start it there."
        )
    if workers:
        names = started(bool(installed(settings).reactions), settings.mlflow_url is not None)
        for name, host, port in doors(settings):
            ports.must_be_free(port, f"RILLFOLD_{name.upper()}_PORT", host)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # A stop that was asked for is no failure, at whatever moment it comes.
    with (
        suppress(KeyboardInterrupt),
        download_bars() as progress,
        serving(settings.data_dir, settings, not no_postgres, progress) as stack,
        at_work(settings.data_dir) as crew,
    ):
        state.as_named(settings, stack.endpoints)
        _tell(stack, settings.data_dir.resolve(), time.monotonic() - begun, as_json)
        if workers:
            in_log(admin.create)
            crew.start(names, each=lambda said: click.echo(f"  {said}", err=as_json))
        _watch(stack, crew)


def _tell(stack: Stack, folder: Path, seconds: float, as_json: bool) -> None:
    if as_json:
        say_json({"endpoints": stack.endpoints, "data_dir": str(folder), "ready_seconds": round(seconds, 2)})
        return
    console = Console(highlight=False)
    console.print(f"[green]Ready[/] in {seconds:.1f} s, data in {folder}")
    console.print(f"  Kafka     {stack.endpoints.bootstrap_servers}")
    if stack.endpoints.postgres_dsn:
        console.print(f"  Postgres  {stack.endpoints.postgres_dsn}")
    console.print("Ctrl-C stops it; the data stays.")


def _watch(stack: Stack, crew: Crew) -> None:
    """Until Ctrl-C or SIGTERM, which come as KeyboardInterrupt. Workers that end are started again."""
    while (ended := stack.ended()) is None:
        for name in crew.mend(time.monotonic()):
            click.echo(f"{name} had ended and was started again; {crew.last_log(name)} says why.", err=True)
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
