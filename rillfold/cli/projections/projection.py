"""`rillfold projection`: what there is, how far it is, and the proof that it is the fold of the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import Stop

if TYPE_CHECKING:
    from projections.projection import Projection
    from streams.log.port import EventLog

NAMED = 20
"""Rows that differ; of more it is said how many."""


class Differs(Stop):
    """A projection is not the fold of its log."""


@click.group()
def projection() -> None:
    """List projections, and prove them against a fresh fold of the log."""


@projection.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list for machines.")
def list_(as_json: bool) -> None:
    """Each projection with its version and its sources."""
    from projections.catalog import PROJECTIONS

    _tell(
        [
            {"projection": each.name, "version": each.version, "topics": " ".join(each.topics)}
            for each in PROJECTIONS.values()
        ],
        as_json,
    )


@projection.command()
@click.argument("names", nargs=-1)
@click.option("--refold", is_flag=True, help="Fold the log again from offset 0, and compare.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list for machines.")
def digest(names: Sequence[str], refold: bool, as_json: bool) -> None:
    """The digest of what the changelogs hold; with --refold also that of a fresh fold up to the same offsets."""
    facts = asyncio.run(_digests(names, refold))
    _tell(facts, as_json)
    if differing := [each["projection"] for each in facts if refold and _differs(each)]:
        raise Differs(f"not the fold of the log: {', '.join(differing)}. Fold anew: see docs/guarantees.md.")


@projection.command()
@click.argument("names", nargs=-1)
@click.option("--company", help="Only this company's events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list for machines.")
def refused(names: Sequence[str], company: str | None, as_json: bool) -> None:
    """Events that a projection does not take, and why: read from the changelogs. A new version tries them again."""
    _tell(asyncio.run(_refused(names, company)), as_json)


async def _refused(names: Sequence[str], company: str | None) -> list[dict[str, Any]]:
    import msgspec

    from rillfold.event_log import event_log
    from rillfold.settings import from_env
    from streams.errors import UnknownTopic
    from streams.history.refold import held
    from streams.state.changelog import topic_of

    settings, found = from_env(), []
    async with event_log(settings) as log:
        for each in _chosen(names):
            try:
                parts = await held(log, each, topic_of(each, settings.topic_prefix))
            except UnknownTopic:
                if names:
                    raise
                continue  # nobody folds it here
            found += [one for part in parts.values() for one in part.refused if company in (None, one.company)]
    return [msgspec.structs.asdict(one) for one in found]


def _differs(facts: dict[str, Any]) -> bool:
    return bool(facts["served"] != facts["refolded"] or facts["untaken"] or facts["unreadable"])


def _chosen(names: Sequence[str]) -> list[Projection[Any]]:
    from projections.catalog import PROJECTIONS

    if unknown := sorted(set(names) - set(PROJECTIONS)):
        raise Stop(f"No projection is called {', '.join(unknown)}. There are {', '.join(sorted(PROJECTIONS))}.")
    return [each for name, each in PROJECTIONS.items() if not names or name in names]


async def _digests(names: Sequence[str], again: bool) -> list[dict[str, Any]]:
    from rillfold.cli.terminal.live import line
    from rillfold.event_log import event_log
    from rillfold.settings import from_env

    chosen = _chosen(names)
    facts = []
    async with event_log(from_env()) as log:
        with line("projections") as tell:
            for done, each in enumerate(chosen):
                tell(done, len(chosen))
                facts.append(await _one(log, each, again))
    return facts


async def _one(log: EventLog, each: Projection[Any], again: bool) -> dict[str, Any]:
    from projections.digest import digest
    from rillfold.settings import from_env
    from streams.history.refold import held, refold
    from streams.state.changelog import topic_of

    names = from_env().topic_names()
    kept = await held(log, each, topic_of(each, names.prefix))
    facts = {
        "projection": each.name,
        "version": each.version,
        "rows": sum(len(part.rows) for part in kept.values()),
        "events": sum(sum(part.markers.values()) for part in kept.values()),
        "refused": sum(len(part.refused) for part in kept.values()),
        "unreadable": sum(len(part.unreadable) for part in kept.values()),
        "served": digest({number: part.rows for number, part in kept.items()}),
    }
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
        "refolded": digest({number: part.rows for number, part in fresh.items()}),
        "seconds": round(time.monotonic() - began, 3),
    }


def _name_rows(projection: str, parts: Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Which rows are not what a fresh fold gives."""
    from rillfold.cli.terminal.plain import plain

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


def _tell(facts: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(facts).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(facts[0] if facts else ()), box=None)
    for each in facts:
        table.add_row(*(str(value) for value in each.values()))
    Console(soft_wrap=True).print(table)
