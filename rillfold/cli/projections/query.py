"""`rillfold query`: projections as tables, with the proof of how far they know the log."""

import asyncio

import click

from projections.catalog import chosen
from rillfold.app.installed import installed
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.settings import from_env


@click.command()
@click.argument("name")
@click.argument("key", required=False)
@click.option("--company", help="Only this company's rows.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Rows, at most.")
@as_json("Whole rows and their proof, as one JSON object.")
def query(name: str, key: str | None, company: str | None, limit: int, as_json: bool) -> None:
    """Show the rows of a projection, or one row by its KEY (company/...)."""
    from rich.console import Console

    from rillfold.cli.projections import rows_of

    settings = from_env()
    (projection,) = chosen([name], installed(settings).projections)
    rows, proof = asyncio.run(rows_of.read(settings, projection, key, company, limit))
    if as_json:
        found = [{"key": row.key, "at": "/".join(map(str, row.at)), "row": row.value} for row in rows]
        say_json({"rows": found, "proof": proof})
        return
    console = Console(highlight=False)
    console.print(rows_of.one(projection, rows[0]) if key else rows_of.many(projection, rows, console.width))
    console.print(f"[dim]{rows_of.told(proof)}[/]")
