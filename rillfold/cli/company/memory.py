"""`rillfold memory`: what a company's agents are to remember."""

import click

from rillfold.cli.company.asking import company_option, listing, rows, said, show, take_back
from rillfold.cli.terminal.answers import moment, say
from rillfold.cli.terminal.verbs import Verbs


@click.group(cls=Verbs)
def memory() -> None:
    """Note something, list what is noted, or forget it."""


@memory.command()
@click.argument("name")
@click.argument("text")
@click.option("--kind", default="fact", show_default=True, type=click.Choice(("fact", "preference", "automation")))
@click.option("--source", default="", help="Where it is from: a person, a job.")
@company_option
def add(name: str, text: str, kind: str, source: str, company: str | None) -> None:
    """Note TEXT under NAME. The same name again replaces it."""
    said([{"type": "memory.noted", "memory": name, "text": text, "kind": kind, "source": source}], company)
    say({"noted": name})


@memory.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """What is noted. What was forgotten stays in the list, and says so."""
    columns = {
        "memory": lambda row: row["memory"],
        "kind": lambda row: row["kind"] if row["active"] else "forgotten",
        "noted": lambda row: moment(row["noted_at"]),
        "text": lambda row: row["text"],
    }
    show(rows("memories", company, limit, after), columns, as_json)


@memory.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Stands in the log.")
@company_option
def forget(names: tuple[str, ...], reason: str, company: str | None) -> None:
    """No longer to be used. What was noted stays in the log."""
    take_back("memories", "memory.forgotten", "memory", names, reason, company)
    say({"forgotten": ", ".join(names)})
