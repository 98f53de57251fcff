"""`rillfold tools`: what a company's jobs may call."""

from codecs import BOM_UTF8
from typing import Any, BinaryIO

import click
import msgspec

from rillfold.cli.company.asking import Json, asked, company_option, listing, rows, show, take_back
from rillfold.cli.terminal.answers import as_json, say, say_json
from rillfold.cli.terminal.given import TOOL
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.verbs import Verbs


@click.group(cls=Verbs)
def tools() -> None:
    """Register, list and revoke a company's tools."""


@tools.command()
@click.argument("file", type=click.File("rb"))
@company_option
@as_json()
def register(file: BinaryIO, company: str | None, as_json: bool) -> None:
    """Offer tools to the company's jobs. FILE is JSON: one tool, a list, or {"tools": [...]}; - is standard input.

    A name that is registered again replaces the tool. Credentials go to the secret store, and into no event.
    """
    given = _tools(file)
    told: Json = asked(lambda api: api.register_tools(company, given), company)
    if as_json:
        say_json(told)
        return
    say({"company": told["company_id"], "tools": ", ".join(told["tools"])})


@tools.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """The company's tools. One that was revoked stays in the list, and says why."""
    columns = {
        "tool": lambda row: row["name"],
        "state": lambda row: "offered" if row["active"] else f"revoked: {row['reason'] or 'no reason given'}",
        "call": lambda row: f"{row['method']} {row['endpoint']}",
        "auth": lambda row: row["auth"]["kind"],
    }
    show(rows("company_tools", company, limit, after), columns, as_json)


@tools.command()
@click.argument("names", type=TOOL, nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="Stands in the log.")
@company_option
def revoke(names: tuple[str, ...], reason: str, company: str | None) -> None:
    """Take tools back: no job that begins from now on may call them."""
    take_back("company_tools", "tool.revoked", "name", names, reason, company)
    say({"revoked": ", ".join(names)})


def _tools(file: BinaryIO) -> list[Any]:
    name = getattr(file, "name", "<stdin>")
    try:
        found = msgspec.json.decode(file.read().removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, RecursionError) as error:
        raise click.BadParameter(plain(f"{name} is no JSON: {error}. Write one tool, or a list of them.")) from error
    found = found.get("tools", [found]) if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found) or not found:
        raise click.BadParameter(plain(f"{name} holds no tool: write an object with `name` and `endpoint`, or a list."))
    return found
