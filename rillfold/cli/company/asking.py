"""The API, asked by a command. Nothing here needs the log, or the machine on which it is."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from rillfold.automation import api_client
from rillfold.cli.company import registered
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.given import COMPANY
from rillfold.cli.terminal.plain import plain
from rillfold.cli.terminal.table import say_table
from rillfold.client import ApiAway, ApiRefused, Client
from rillfold.profiles import way_to_api
from rillfold.settings import from_env
from schemas.errors import Stop

Json = dict[str, Any]
Wanted = Callable[[Json], bool]
Found = TypeVar("Found")
Command = TypeVar("Command", bound=Callable[..., Any])
MOST, SHOWN = 100_000, 20
REMEDIES = {
    "forbidden": " Unset RILLFOLD_API_KEY where the admin's key lies in the data folder, or set it to the admin's.",
    "unauthorized": " Set RILLFOLD_API_KEY to a key of this API (`rillfold key list`).",
}
PAGE = 200
"""Rows of one request, at most."""


class ListedRows(NamedTuple):
    rows: Sequence[Json]
    after: str | None
    """Where the next ones begin, if there are more."""


def asked(
    work: Callable[[Client], Awaitable[Found]],
    company: str | None = None,
    nothing: Callable[[Found], bool] = lambda _: False,
) -> Found:
    """`company`: the one that was named, which may be misspelt. `nothing`: was found under it."""

    settings = from_env()
    for doubt in way_to_api(settings).doubts:
        click.echo(plain(f"rillfold: {doubt}"), err=True)

    async def done() -> Found:
        async with api_client(settings) as api:
            try:
                found = await work(api)
            except (ApiRefused, Stop):
                await _doubt(api, company, nothing=True)
                raise
            await _doubt(api, company, nothing(found))
            return found

    try:
        return asyncio.run(done())
    except ApiRefused as error:
        remedy = REMEDIES.get(error.code, "")
        if remedy and settings.profile:
            remedy = f" The key is the one that profile {settings.profile!r} names: correct it there."
        raise Stop(f"{str(error).replace('in company_id', 'with --company')}{remedy}") from error


async def _doubt(api: Client, company: str | None, nothing: bool) -> None:
    with suppress(ApiRefused, ApiAway):  # of a key that may not see it; what it was refused before is told
        if company is not None and await api.found("companies", company) is None:
            known = (await in_pages(api, "companies", None, registered.MOST)).rows
            registered.say_doubt(company, {row["company"] for row in known}, nothing)


def take_back(projection: str, event: str, member: str, names: Sequence[str], reason: str, company: str | None) -> None:
    """By one `event` for each of the `names`. Who names a thing that is not there has misspelt it, and all stay."""
    there = [row[member] for row in rows(projection, company, MOST, None).rows if row["active"]]
    if missing := [name for name in names if name not in there]:
        known = ", ".join(there[-SHOWN:]) or "none"
        raise Stop(f"There is no {missing[0]!r}, and nothing was done. There are: {known}.")
    said([{"type": event, member: name, "reason": reason} for name in names], company)


def company_option(command: Command) -> Command:
    return click.option("--company", type=COMPANY, help="Whose. Needed with the admin's key alone.")(command)


def listing(command: Command) -> Command:
    """Options of what shows rows."""
    limit = click.option("--limit", default=50, show_default=True, type=click.IntRange(1, MOST), help="Rows, at most.")
    after = click.option("--after", help="Go on where a listing ended.")
    return company_option(after(limit(as_json("Whole rows, as one JSON object.")(command))))


def rows(
    projection: str, company: str | None, limit: int, after: str | None, wanted: Wanted | None = None
) -> ListedRows:
    """So many of a company's rows, of those that are wanted."""
    look = partial(in_pages, projection=projection, company=company, limit=limit, after=after, wanted=wanted)
    return asked(look, company, nothing=lambda found: after is None and not found.rows)


async def in_pages(
    api: Client,
    projection: str,
    company: str | None,
    limit: int,
    after: str | None = None,
    wanted: Wanted | None = None,
) -> ListedRows:
    found: list[Json] = []
    start = after
    while (left := limit - len(found)) > 0:
        query = {"company_id": company, "after": start, "limit": min(PAGE, left) if wanted is None else PAGE}
        page = await api.rows(projection, **{name: value for name, value in query.items() if value is not None})
        fit = [each for each in page["rows"] if wanted is None or wanted(each["row"])]
        found += [each["row"] for each in fit[:left]]
        if len(fit) > left:
            return ListedRows(found, fit[left - 1]["key"])
        if (start := page["next"]) is None:
            break
    return ListedRows(found, start)


def show(
    found: ListedRows, columns: Mapping[str, Callable[[Json], object]], as_json: bool, left_out: str | None = None
) -> None:
    """`left_out`: what one might look for among them, and where it is."""
    if as_json:
        say_json({"rows": found.rows, "next": found.after} | ({"left_out": left_out} if left_out else {}))
        return
    say_table(list(columns), [[cell(row) for cell in columns.values()] for row in found.rows])
    if found.after is not None:
        click.echo(plain(f"There are more: --after {found.after}"))
    if left_out:
        click.echo(left_out)


def said(events: Sequence[Json], company: str | None, topic: str = "company-data") -> Sequence[Json]:
    """A company's events, and where they stand now."""
    whose = {} if company is None else {"company": company}
    told = [{**whose, **event} for event in events]
    placed: Sequence[Json] = asked(lambda api: api.produce(topic, told), company)
    return placed
