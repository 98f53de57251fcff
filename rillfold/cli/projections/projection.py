"""`rillfold projection`: what there is, how far it is, and the proof that it is the fold of the log."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
import msgspec

from projections.catalog import chosen
from projections.digest import digest as digest_of
from projections.projection import Projection
from rillfold.app.installed import installed
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.projections import told
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import COMPANY
from rillfold.cli.terminal.live import line
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs
from rillfold.event_log import in_log
from rillfold.settings import from_env
from schemas.errors import Stop
from schemas.topics import TopicNames
from streams.errors import UnknownTopic
from streams.history.refold import held, refold
from streams.log.port import EventLog
from streams.state.changelog import topic_of
from streams.state.refusal import Refusal

NAMED = 20
"""Rows that differ; of more it is said how many."""
InWords = Callable[[Sequence[told.Facts]], Iterator[str]]


class Differs(Stop):
    """A projection is not the fold of its log."""


@click.group(cls=Verbs)
def projection() -> None:
    """List projections, and prove them against a fresh fold of the log."""


@projection.command("list")
@as_json("One JSON list for machines.")
def list_(as_json: bool) -> None:
    """Each projection with its version and its sources."""
    every = installed(from_env()).projections.values()
    facts = [{"projection": p.name, "version": p.version, "topics": " ".join(p.topics)} for p in every]
    _tell(facts, as_json, told.projections)


@projection.command()
@click.argument("names", nargs=-1)
@click.option("--refold", is_flag=True, help="Fold the log again from offset 0, and compare.")
@as_json("One JSON list for machines.")
def digest(names: Sequence[str], refold: bool, as_json: bool) -> None:
    """The digest of what the changelogs hold; with --refold also that of a fresh fold up to the same offsets."""
    wanted = chosen(names, installed(from_env()).projections)

    async def digests(log: EventLog, names: TopicNames) -> list[dict[str, Any]]:
        facts = []
        with line("projections") as tell:
            for done, each in enumerate(wanted):
                tell(done, len(wanted))
                facts.append(await _digest(log, names, each, refold))
        return facts

    facts = in_log(digests)
    _tell(facts, as_json, told.digests)
    _judge(facts)


def _judge(facts: Sequence[told.Facts]) -> None:
    if grown := [each["projection"] for each in facts if "grown" in each]:
        raise Differs(
            f"folded from another number of partitions than there are: {', '.join(grown)}. Rows of keys that have "
            f"moved are in halves. Copy the events into topics that are made with the new number, under another "
            f"RILLFOLD_TOPIC_PREFIX: docs/topics.md."
        )
    if differing := [each["projection"] for each in facts if told.differs(each)]:
        raise Differs(
            f"not the fold of the log: {', '.join(differing)}. Fold anew: its steps are in docs/operations.md."
        )


@projection.command()
@click.argument("names", nargs=-1)
@click.option("--company", type=COMPANY, help="Only this company's events.")
@as_json("One JSON list for machines.")
def refused(names: Sequence[str], company: str | None, as_json: bool) -> None:
    """Events that a projection does not take, and why: read from the changelogs. A new version tries them again."""

    wanted = chosen(names, installed(from_env()).projections)

    async def read(log: EventLog, topics: TopicNames) -> list[dict[str, Any]]:
        found: list[Refusal] = []
        with line("projections") as tell:
            for done, each in enumerate(wanted):
                tell(done, len(wanted))
                try:
                    parts = await held(log, each, topic_of(each, topics.prefix))
                except UnknownTopic:
                    if names:
                        raise
                    continue  # nobody folds it here
                found += [one for part in parts.values() for one in part.refused if company in (None, one.company)]
        return [msgspec.structs.asdict(one) for one in found]

    facts = in_log(read)
    doubt_in_log(company, nothing=not facts)
    _tell(facts, as_json, told.refusals)


async def _digest(log: EventLog, names: TopicNames, each: Projection[Any], again: bool) -> dict[str, Any]:
    kept = await held(log, each, topic_of(each, names.prefix))
    facts: dict[str, Any] = {
        "projection": each.name,
        "version": each.version,
        "rows": sum(len(part.rows) for part in kept.values()),
        "events": sum(sum(part.markers.values()) for part in kept.values()),
        "refused": sum(len(part.refused) for part in kept.values()),
        "unreadable": sum(len(part.unreadable) for part in kept.values()),
        "served": digest_of({number: part.rows for number, part in kept.items()}),
    }
    for loss in (loss for part in kept.values() for loss in part.lost):
        click.echo(f"{each.name}: {loss}", err=True)
    if grown := await _grown(log, names, each, len(kept)):
        facts["grown"] = grown
    if not again:
        return facts
    began = time.monotonic()
    fresh = {number: await refold(log, each, names, number, part) for number, part in kept.items()}
    for one in (one for part in fresh.values() for one in part.untaken):
        click.echo(f"Not taken by a fresh fold, and in the rows: {one}", err=True)
    _name_rows(each.name, {n: (part.rows, fresh[n].rows) for n, part in kept.items()})
    return {
        **facts,
        "untaken": sum(len(part.untaken) for part in fresh.values()),
        "refolded": digest_of({number: part.rows for number, part in fresh.items()}),
        "seconds": round(time.monotonic() - began, 3),
    }


async def _grown(log: EventLog, names: TopicNames, each: Projection[Any], folded: int) -> dict[str, int]:
    """Sources whose keys decide by another number than these rows were folded from."""
    grown = dict[str, int]()
    for source in map(names.wire, each.topics):
        with suppress(UnknownTopic):  # rows are proved without it, as far as they can be
            if (there := len(await log.ends(source))) != folded:
                grown[source] = there
                click.echo(
                    f"{each.name}: {source} has {there} partitions, its rows were folded from {folded}", err=True
                )
    return grown


def _name_rows(projection: str, parts: Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Which rows are not what a fresh fold gives."""
    differing = [
        f"{projection}/{number} {key}"
        for number, (rows, fresh) in parts.items()
        for key in sorted(rows.keys() | fresh.keys())
        if rows.get(key) != fresh.get(key)
    ]
    for row in differing[:NAMED]:
        click.echo(plain(f"Not the fold of the log: row {row}"), err=True)
    if len(differing) > NAMED:
        click.echo(f"And {len(differing) - NAMED} rows of {projection} more.", err=True)


def _tell(facts: Sequence[told.Facts], as_json: bool, in_words: InWords) -> None:
    if as_json:
        say_json(facts)
    else:
        told.say_lines(in_words(facts))
