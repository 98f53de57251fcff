"""`rillfold company`: who there is, and who comes in. With the admin's key."""

import click

from rillfold.cli.company.asking import Json, asked, listing, rows, show
from rillfold.cli.terminal.answers import as_json, moment, say, say_json
from rillfold.cli.terminal.given import COMPANY
from rillfold.cli.terminal.verbs import Verbs
from rillfold.client import Client
from schemas.errors import Stop


class AlreadyThere(Stop):
    """A company that was added before."""


@click.group(cls=Verbs)
def company() -> None:
    """Add a company, or list them."""


@company.command()
@click.argument("company_id", type=COMPANY, metavar="COMPANY")
@click.option("--name", default="", help="As people call it.")
@as_json()
def add(company_id: str, name: str, as_json: bool) -> None:
    """Register COMPANY, and make an API key for it, which is shown this once."""

    async def joined(api: Client) -> Json:
        if await api.found("companies", company_id) is not None:
            raise AlreadyThere(
                f"{company_id} is registered already. One more key: `rillfold key new {company_id}`; a new "
                "name: send `company.registered` with it."
            )
        return await api.join(company_id, name)

    told = asked(joined)
    if as_json:
        say_json(told)
        return
    say({"company": told["company_id"], "key": told["api_key"]})
    click.echo(
        f"The key is shown this once. For the commands of this company: export RILLFOLD_API_KEY={told['api_key']}"
    )


@company.command("list")
@listing
def list_(company: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """The companies that there are."""
    columns = {
        "company": lambda row: row["company"],
        "name": lambda row: row["name"],
        "since": lambda row: moment(row["registered_at"]),
    }
    show(rows("companies", company, limit, after), columns, as_json)
