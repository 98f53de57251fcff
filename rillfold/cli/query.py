"""`rillfold query`: projections as tables, with the proof of how far they know the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from projections.catalog import PROJECTIONS
from projections.projection import Projection
from rillfold.embedded.stack import attach
from rillfold.settings import Settings, from_env
from schemas.errors import Poison
from streams.kafka import KafkaLog
from streams.reads import Reads, Row

COLUMNS = 6
CELL = 40
Proof = dict[str, Any]


class NoSuchRow(Poison):
    """Nothing in the projection has this key."""


@click.command()
@click.argument("name", type=click.Choice(sorted(PROJECTIONS)))
@click.argument("key", required=False)
@click.option("--company", help="Only this company's rows.")
@click.option("--limit", default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Whole rows and their proof, as one JSON object.")
def query(name: str, key: str | None, company: str | None, limit: int, as_json: bool) -> None:
    """Show the rows of a projection, or one row by its KEY (company/...)."""
    projection = PROJECTIONS[name]
    rows, proof = asyncio.run(_read(from_env(), projection, key, company, limit))
    if as_json:
        found = [{"key": row.key, "at": "/".join(map(str, row.at)), "row": row.value} for row in rows]
        click.echo(msgspec.json.encode({"rows": found, "proof": proof}).decode())
        return
    console = Console(highlight=False)
    console.print(_one(rows[0]) if key else _many(projection, rows))
    console.print(f"[dim]{_told(proof)}[/]")


async def _read(
    settings: Settings, projection: Projection[Any], key: str | None, company: str | None, limit: int
) -> tuple[list[Row], Proof]:
    endpoints, names = attach(settings), settings.topic_names()
    async with KafkaLog(endpoints.bootstrap_servers) as log, Reads(endpoints.postgres_dsn) as reads:
        positions = await reads.positions(projection)
        ends = {topic: await log.ends(topic) for topic in map(names.wire, projection.topics)}
        proof = {"projection": projection.name, "version": projection.version} | _progress(positions, ends)
        if key is None:
            return await reads.rows(projection, company, None, limit), proof
        row = await reads.row(projection, key)
    if row is None:
        raise NoSuchRow(f"{projection.name} has no row {key!r}: `rillfold query {projection.name}` lists its keys.")
    return [row], proof


def _progress(positions: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]]) -> Proof:
    lag = {topic: {p: end - positions.get(topic, {}).get(p, 0) for p, end in of.items()} for topic, of in ends.items()}
    return {"positions": positions, "lag": lag}


def _many(projection: Projection[Any], rows: Sequence[Row]) -> Table:
    """The first fields that hold something in some row; the rest is in --json."""
    table = Table(title=f"{projection.name} ({len(rows)})", title_justify="left")
    filled = [name for name in projection.state.__struct_fields__ if any(row.value.get(name) for row in rows)]
    shown = [name for name in filled if name != "company"][:COLUMNS]
    for heading in ("key", *shown):
        table.add_column(heading, overflow="ellipsis", max_width=CELL)
    for row in rows:
        table.add_row(escape(row.key), *(_cell(row.value.get(name)) for name in shown))
    return table


def _one(row: Row) -> Table:
    table = Table(title=row.key, title_justify="left", show_header=False)
    for name, value in row.value.items():
        table.add_row(name, escape(_text(value)))
    return table


def _cell(value: object) -> str:
    text = _text(value).replace("\n", " ")
    return escape(text if len(text) <= CELL else text[: CELL - 1] + "…")


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _told(proof: Proof) -> str:
    lag = sum(left for of in proof["lag"].values() for left in of.values())
    places = ", ".join(f"{t}/{p}:{n}" for t, of in sorted(proof["positions"].items()) for p, n in sorted(of.items()))
    return f"{proof['projection']} v{proof['version']}, {lag} events behind the log; folded up to {places or 'nothing'}"
