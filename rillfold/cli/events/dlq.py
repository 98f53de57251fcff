"""`rillfold dlq`: what was refused and why, its bytes, and the way back."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from rillfold.app.installed import installed
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import COMPANY, MOST
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs
from rillfold.event_log import in_log
from rillfold.settings import from_env
from schemas.errors import Stop
from schemas.near import meant
from schemas.rejected import REASONS, RecordRejected
from schemas.topics import BY_NAME
from streams.history.letters import KeptLetter, Wanted, letters
from streams.history.redrive import LEFT_OUT, LeftOut, Redriven
from streams.history.redrive import redrive as send_again


class NoLetter(Stop):
    """No such record on the dead-letter topic."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--topic", help="Only records that came from this topic, by its name on the wire."),
        click.option("--reason", help="Only records that were refused for this reason."),
        click.option("--company", type=COMPANY, help="Only records whose key names this company."),
    ):
        command = option(command)
    return command


@click.group(cls=Verbs)
def dlq() -> None:
    """Look at records that were refused, and send them again once the reason is gone."""


@dlq.command("list")
@filters
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, MOST), help="The newest so many.")
@as_json("One JSON list for machines.")
def list_(limit: int, as_json: bool, **wanted: str | None) -> None:
    """Where each came from, and why it was refused."""
    facts = [_fact(kept) for kept in _letters(_wanted(wanted), bare=True)[-limit:]]
    doubt_in_log(wanted.get("company"), nothing=not facts)
    if as_json:
        say_json(facts)
        return
    for fact in facts:
        line = f"{fact['topic']}/{fact['partition']}/{fact['offset']}  {fact['reason']}  {fact['detail']}"
        line += "  (sent again)" if fact["sent_again"] else ""
        click.echo(plain(line))
    click.echo(f"{len(facts)} refused. `rillfold dlq show TOPIC/PARTITION/OFFSET` has the bytes.")


@dlq.command()
@click.argument("place", metavar="TOPIC/PARTITION/OFFSET")
@click.option("--raw", is_flag=True, help="The value's bytes as they were, and nothing else.")
def show(place: str, raw: bool) -> None:
    """One record whole. PLACE is where it stood before it was refused."""
    found = _at(place)
    if raw:
        click.get_binary_stream("stdout").write(found[0].letter.value or b"")
        return
    for kept in found:
        letter = kept.letter
        say(_fact(kept))
        click.echo(f"{'key':10} {letter.key!r}\n{'headers':10} {[(h.key, h.value) for h in letter.headers]}")
        click.echo(f"{'value':10} {letter.value!r}")


@dlq.command()
@click.argument("place", metavar="[TOPIC/PARTITION/OFFSET]", required=False)
@filters
@click.option("--gone", is_flag=True, help="Also records that the log does not hold any more: letters are believed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json()
def redrive(place: str | None, gone: bool, yes: bool, as_json: bool, **wanted: str | None) -> None:
    """Send refused records to where they came from once more: one by its PLACE, or all that fit the filters.

    A second redrive sends nothing twice, also while the first is at work. What cannot be sent is named.
    """
    fits = _wanted(wanted)
    found = [kept for kept in _at(place) if fits(kept.letter)] if place else _letters(fits)
    if not found:
        doubt_in_log(wanted.get("company"), nothing=True)
        if not as_json:
            click.echo("Nothing that was refused fits, and nothing is sent: `rillfold dlq list` names what was.")
            return
    elif not yes:
        _agreed(f"Send {len(found)} records again?")
    chosen, now = [kept.letter for kept in found], time.time_ns() // 1000
    done: Redriven = in_log(lambda log, names: send_again(log, names, chosen, now, gone))
    if as_json:
        say_json({"found": len(found), "sent": done.sent, "left_out": list(map(_left, done.left_out))})
        return
    click.echo(f"{done.sent} of {len(found)} were sent again.")
    for each in done.left_out:
        click.echo(plain(f"{_place(each.letter)}  not sent: {LEFT_OUT[each.why]}"))


def _agreed(question: str) -> None:
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        raise Stop("Nothing was sent: nobody was there to be asked. Say --yes.") from error


def _wanted(given: Mapping[str, str | None]) -> Wanted:
    installed(from_env())
    there = sorted(map(from_env().topic_names().wire, BY_NAME))
    if (topic := given.get("topic")) is not None and topic not in there:
        raise Stop(f"No topic {topic} is read here.{meant(topic, there)} These are: {', '.join(there)}.")
    if (reason := given.get("reason")) is not None and reason not in REASONS:
        raise Stop(f"No record is refused for {reason!r}.{meant(reason, REASONS)} Reasons are: {', '.join(REASONS)}.")
    return lambda letter: all(value in (None, getattr(letter, field)) for field, value in given.items())


def _letters(wanted: Wanted, bare: bool = False) -> list[KeptLetter]:
    return in_log(lambda log, names: letters(log, names, wanted, bare))


def _at(place: str) -> list[KeptLetter]:
    if found := _letters(lambda letter: _place(letter) == place):
        return found
    raise NoLetter(f"nothing from {place} was refused: `rillfold dlq list` names what was.")


def _place(letter: RecordRejected) -> str:
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


def _left(each: LeftOut) -> dict[str, Any]:
    letter, why = each
    return {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "why": why}


def _fact(kept: KeptLetter) -> dict[str, Any]:
    letter = kept.letter
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "company": letter.company,
        "bytes": kept.size,
        "id": letter.id,
        "sent_again": kept.redriven,
    }
