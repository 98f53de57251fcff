"""`rillfold dlq`: what was refused and why, its bytes, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from rillfold.cli.terminal.plain import plain
from schemas.errors import Stop

if TYPE_CHECKING:
    from schemas.rejected import RecordRejected

SHOWN = 70


class NoLetter(Stop):
    """No such record on the dead-letter topic."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--topic", help="Only records that came from this topic, by its name on the wire."),
        click.option("--reason", help="Only records that were refused for this reason."),
        click.option("--company", help="Only records whose key names this company."),
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """Look at records that were refused, and send them again once the reason is gone."""


@dlq.command("list")
@filters
@click.option("--limit", default=1000, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list for machines.")
def list_(topic: str | None, reason: str | None, company: str | None, limit: int, as_json: bool) -> None:
    """Where each came from, and why it was refused."""
    found = asyncio.run(_letters(_wanted(topic, reason, company)))[-limit:]
    facts = [_fact(letter) for letter in found]
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(facts).decode())
        return
    for fact in facts:
        line = f"{fact['topic']}/{fact['partition']}/{fact['offset']}  {fact['reason']}  {fact['detail'][:SHOWN]}"
        click.echo(plain(line))
    click.echo(f"{len(facts)} refused. `rillfold dlq show TOPIC/PARTITION/OFFSET` has the bytes.")


@dlq.command()
@click.argument("place", metavar="TOPIC/PARTITION/OFFSET")
@click.option("--raw", is_flag=True, help="The value's bytes as they were, and nothing else.")
def show(place: str, raw: bool) -> None:
    """One record whole. PLACE is where it stood before it was refused."""
    found = asyncio.run(_letters(lambda letter: f"{letter.topic}/{letter.partition}/{letter.offset}" == place))
    if not found:
        raise NoLetter(f"nothing from {place} was refused: `rillfold dlq list` names what was.")
    if raw:
        click.get_binary_stream("stdout").write(found[0].value or b"")
        return
    for letter in found:
        for name, value in _fact(letter).items():
            click.echo(plain(f"{name:10} {value}"))
        click.echo(f"{'key':10} {letter.key!r}\n{'headers':10} {[(h.key, h.value) for h in letter.headers]}")
        click.echo(f"{'value':10} {letter.value!r}")


@dlq.command()
@filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for machines.")
def redrive(topic: str | None, reason: str | None, company: str | None, yes: bool, as_json: bool) -> None:
    """Send refused records to where they came from once more; a second redrive sends nothing twice."""
    wanted = _wanted(topic, reason, company)
    found = asyncio.run(_letters(wanted))
    if not yes:
        click.confirm(f"Send {len(found)} records again?", abort=True, err=True)
    sent = asyncio.run(_redrive(found))
    click.echo(f'{{"found":{len(found)},"sent":{sent}}}' if as_json else f"{sent} of {len(found)} were sent again.")


def _wanted(topic: str | None, reason: str | None, company: str | None) -> Callable[[RecordRejected], bool]:
    def wanted(letter: RecordRejected) -> bool:
        asked = ((topic, letter.topic), (reason, letter.reason), (company, letter.company))
        return all(given is None or given == value for given, value in asked)

    return wanted


async def _letters(wanted: Callable[[RecordRejected], bool]) -> list[RecordRejected]:
    from rillfold.event_log import event_log
    from rillfold.settings import from_env
    from streams.history.letters import letters

    settings = from_env()
    async with event_log(settings) as log:
        return [letter async for _, letter in letters(log, settings.topic_names(), wanted)]


async def _redrive(found: Sequence[RecordRejected]) -> int:
    from rillfold.event_log import event_log
    from rillfold.settings import from_env
    from streams.history.letters import redrive

    settings = from_env()
    async with event_log(settings) as log:
        return await redrive(log, settings.topic_names(), found)


def _fact(letter: RecordRejected) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "company": letter.company,
        "bytes": len(letter.value or b""),
        "id": letter.id,
    }
