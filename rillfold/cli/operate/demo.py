"""`rillfold demo`: the whole story on this machine, from events to adapters and back."""

import asyncio
import secrets
import signal
import sys
from pathlib import Path

import click
import msgspec

from rillfold.cli.terminal.bars import download_bars
from rillfold.demo.data import COMPANIES
from rillfold.demo.narrator import Narrator
from rillfold.demo.parts import ALL
from rillfold.demo.stage import Stage, own_servers
from rillfold.demo.story import fresh, tell
from rillfold.demo.tool_server import tool_server
from rillfold.embedded import ports
from rillfold.embedded.stack import serving
from rillfold.embedded.state import Endpoints
from rillfold.settings import from_env
from rillfold.workers.crew import at_work
from streams.log.kafka.log import KafkaLog

OWN = {
    "provider": "embedded",
    "bootstrap_servers": None,
    "kafka_security": "PLAINTEXT",
    "postgres_dsn": None,
    "kafka_port": 0,
    "postgres_port": 0,
}


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(".rillfold/demo"), show_default=True)
def demo(keep: bool, data_dir: Path) -> None:
    """Tell the whole story on this machine: events, folds, adapters, answers, a job, a replay."""
    # Each ends the story in order: workers, then the stack. Said for Ctrl-C too: a shell's background jobs ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        _story(keep, data_dir.resolve())
    except KeyboardInterrupt:
        click.echo("rillfold: stopped, with all that it had started. `make demo` begins anew.", err=True)
        sys.exit(130)


def _story(keep: bool, data_dir: Path) -> None:
    narrator = Narrator(sys.stdout)
    console = narrator.console
    fresh(data_dir, console)
    settings = msgspec.structs.replace(from_env(), data_dir=data_dir, **OWN)
    tokens = {company.id: secrets.token_urlsafe(24) for company in COMPANIES}
    with narrator.never_silent(), narrator.live("Starting Kafka and Postgres", told=False), download_bars() as progress:
        console.print("Starting Kafka and Postgres …")
        with (
            serving(data_dir, settings, True, progress) as stack,
            tool_server(tokens) as tools,
            at_work(data_dir, _environment(urls := _urls(), stack.endpoints)) as crew,
        ):
            log = KafkaLog(stack.endpoints.bootstrap_servers)
            asyncio.run(_tell(Stage(narrator, settings, stack.endpoints, crew, log, tools, tokens, urls), log))
            if keep:
                console.print("Everything runs on. Ctrl-C stops it.")
                signal.pause()


def _urls() -> dict[str, str]:
    """Ports of this demo's own, so that two of them stand side by side."""
    api = ports.free_port()
    return {worker: f"http://{ports.HOST}:{port}" for worker, port in (("api", api), ("serve", ports.free_port(api)))}


def _environment(urls: dict[str, str], servers: Endpoints) -> dict[str, str]:
    """The companies' APIs live on this machine. A worker is killed: the story waits until its group has noticed."""
    return own_servers(servers) | {
        "RILLFOLD_SESSION_TIMEOUT": "6",
        "RILLFOLD_API_PORT": urls["api"].rpartition(":")[2],
        "RILLFOLD_SERVE_PORT": urls["serve"].rpartition(":")[2],
        "RILLFOLD_SERVE_URL": urls["serve"],
        "RILLFOLD_ALLOW_PRIVATE_TOOLS": "true",
    }


async def _tell(stage: Stage, log: KafkaLog) -> None:
    async with log:
        try:
            await tell(ALL, stage)
        finally:
            if stage.api is not None:
                await stage.api.__aexit__()
