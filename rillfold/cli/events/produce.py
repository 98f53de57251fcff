"""`rillfold produce`: rows of a file or of standard input into a topic."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
import msgspec

from rillfold.app.installed import installed
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json
from rillfold.cli.terminal.given import COMPANY, ROLE
from rillfold.cli.terminal.plain import plain
from rillfold.event_log import event_log
from rillfold.produce.rows import agent_of
from rillfold.profiles import of_the_settings
from rillfold.settings import from_env
from schemas.codec.catalog import kind_of
from schemas.errors import Stop
from schemas.near import meant
from schemas.topics import BY_NAME, Topic, TopicNames, events_on

if TYPE_CHECKING:
    from rillfold.produce.importing import Imported


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--format", "form", type=click.Choice(("jsonl", "csv", "outputs")), help="Default: by the file's name.")
@click.option("--agent", type=ROLE, help="Whose outputs FILE holds. Default: by its name, AGENT_outputs.json(l).")
@click.option("--company", type=COMPANY, help="For rows that name no company.")
@click.option("--type", "type_", metavar="EVENT", help="For rows that name no type, such as text.ingested.")
@click.option("--rejects", type=click.Path(path_type=Path, dir_okay=False), help="Default: FILE.rejects.jsonl.")
@as_json()
def produce(
    topic: str,
    file: BinaryIO,
    form: str | None,
    agent: str | None,
    company: str | None,
    type_: str | None,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Send each row of FILE (JSON lines or CSV, default standard input) to TOPIC as an event.

    AGENT_outputs.json, or .jsonl, holds what an agent said: chats ({"messages": [...]}) or prompts with their outputs
    ({"prompt": ..., "output": ...}), as a JSON array or JSON lines.

    Rows that are no event of the topic go to a file of rejects, with line numbers and reasons; then the exit code
    is 1. Sending the same file again gives the same ids. Ctrl-C sends what was read and says how much that was.
    """
    name = Path(file.name).name if file.name not in ("<stdin>", "-") else "stdin"
    rejects = rejects or Path(file.name if name != "stdin" else name).with_name(f"{name}.rejects.jsonl")
    form = form or ("outputs" if agent or agent_of(name) else "csv" if name.endswith(".csv") else "jsonl")
    if form == "outputs" and agent is None:
        agent = _agent_of(name)
    if agent and form != "outputs":
        raise click.UsageError(f"--agent is of files of outputs, and this one is read as {form}: say --format outputs.")
    given = {key: value for key, value in (("company", company), ("type", type_)) if value}
    doubt_in_log(company, nothing=False)
    outcome, signalled = asyncio.run(_run(topic, file, name, form, rejects, given, agent))
    _tell(outcome, as_json)
    if not outcome.rejected and rejects.is_file():
        click.echo(plain(f"{rejects} is of an earlier send: nothing was rejected now."), err=True)
    sys.exit(128 + signalled if signalled else 1 if outcome.rejected or outcome.stopped else 0)


async def _run(
    topic: str, file: BinaryIO, name: str, form: str, rejects: Path, given: dict[str, str], agent: str | None
) -> tuple[Imported, int]:
    from rillfold.produce.importing import Import, Rejects, Source  # the client of Kafka: `--help` goes without

    settings = from_env()
    installed(settings)
    names = settings.topic_names()
    ours = _topic(topic, names)
    source, signalled = Source(file), 0

    def stop(number: int) -> None:
        nonlocal signalled
        signalled = number
        source.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    there = event_log(of_the_settings(settings))
    defaults = _defaults(ours, given)
    async with there as log:
        with Rejects(rejects).beside(file) as rejected, _bar(file) as advanced:
            sending = Import(ours, names, log, rejected, defaults, agent)
            outcome = await sending.run(source, name, form, advanced)
    if signalled and outcome.stopped is None:
        outcome.stopped = f"{signal.Signals(signalled).name} after {outcome.rows} rows"
    return outcome, signalled


def _agent_of(file: str) -> str | None:
    if (named := agent_of(file)) is None:
        return None
    try:
        return ROLE.convert(named, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"{file}: {error.message} Say whose outputs it holds by --agent.") from error


def _topic(name: str, names: TopicNames) -> Topic:
    """By our name or by the company's."""
    for topic in BY_NAME.values():
        if name in (topic.name, names.wire(topic.name)):
            return topic
    raise Stop(f"No topic {name!r}.{meant(name, BY_NAME)} Take one of {', '.join(BY_NAME)}.")


def _defaults(topic: Topic, given: dict[str, str]) -> dict[str, str]:
    """A topic of one event needs no type in its rows."""
    there = [kind_of(event).type for event in events_on(topic)]
    if (wanted := given.get("type")) is not None and wanted not in there:
        raise Stop(f"No event {wanted!r} is of {topic.name}.{meant(wanted, there)} There are: {', '.join(there)}.")
    return {**({"type": there[0]} if len(there) == 1 else {}), **given}


@contextmanager
def _bar(file: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Bytes, rate and time left, on a terminal only."""
    if not sys.stderr.isatty() or file.name == "<stdin>":
        yield lambda _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=Path(file.name).stat().st_size)
        yield lambda size: bars.advance(task, size)


def _tell(outcome: Imported, as_json: bool) -> None:
    if as_json:
        text = msgspec.json.encode(outcome).decode()
    else:
        text = f"{outcome.sent} sent to {outcome.topic} in {outcome.seconds} s ({outcome.rows_per_second:,.0f}/s)"
        if outcome.rejected:
            text += f"\n{outcome.rejected} rejected, the first is {outcome.first_reject}: see {outcome.rejects_file}"
        if not outcome.rows and not outcome.stopped:
            text += "\nit holds no row"
        if outcome.stopped:
            text += f"\nstopped early: {outcome.stopped}"
    try:
        click.echo(text if as_json else plain(text))
    except BrokenPipeError:
        click.echo(text, err=True)
