"""`rillfold query`: projections as tables, with the proof of how far they know the log."""

import asyncio

import click

from projections.catalog import chosen
from rillfold.app.installed import installed
from rillfold.cli.company.registered import doubt_in_log
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import COMPANY
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.table import facts, room, table
from rillfold.settings import from_env

PIPED = 160
"""Columns where nobody looks at it: the rest is in --json."""


@click.command()
@click.argument("name")
@click.argument("key", required=False)
@click.option("--company", type=COMPANY, help="Only this company's rows.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Rows, at most.")
@as_json("Whole rows and their proof, as one JSON object.")
def query(name: str, key: str | None, company: str | None, limit: int, as_json: bool) -> None:
    """Show the rows of a projection, or one row by its KEY (company/...)."""
    from rillfold.cli.projections import rows_of

    settings = from_env()
    (projection,) = chosen([name], installed(settings).projections)
    rows, proof = asyncio.run(rows_of.read(settings, projection, key, company, limit))
    if not rows:
        doubt_in_log(company, nothing=True)
    if as_json:
        found = [{"key": row.key, "at": "/".join(map(str, row.at)), "row": row.value} for row in rows]
        say_json({"rows": found, "proof": proof})
        return
    if key:
        lines = facts(rows_of.one(projection, rows[0]), room())
    else:
        lines = table(*rows_of.many(projection, rows, room() or PIPED), room())
    for line in (*lines, plain(rows_of.told(proof))):
        click.echo(line)
