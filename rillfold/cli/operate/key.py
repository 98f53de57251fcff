"""`rillfold key`: the API's keys, as they lie in the data folder."""

import click

from rillfold.cli.company.registered import say_doubt
from rillfold.cli.terminal.answers import as_json, moment, say_json
from rillfold.cli.terminal.given import COMPANY
from rillfold.cli.terminal.table import say_table
from rillfold.cli.terminal.verbs import Verbs
from rillfold.http.keys import ApiKeys, id_of
from rillfold.settings import from_env


@click.group(cls=Verbs)
def key() -> None:
    """List, make, rotate and revoke API keys. A running API knows at once."""


def _keys() -> ApiKeys:
    return ApiKeys.of(from_env().data_dir)


@key.command("list")
@click.option("--company", type=COMPANY, help="Only this company's.")
@as_json("One JSON list.")
def list_(company: str | None, as_json: bool) -> None:
    """Whose keys there are, and since when. Never the keys: they are shown once, when they are made."""
    found = _keys().list(company)
    if as_json:
        say_json(found)
        return
    made = {each.id: "" if each.made_at is None else moment(each.made_at) for each in found}
    say_table(("id", "company", "made"), [(each.id, each.company or "(admin)", made[each.id]) for each in found])


@key.command()
@click.argument("company", type=COMPANY, required=False)
@click.option("--admin", is_flag=True, help="A key for all companies, and for making and revoking keys.")
@as_json("One JSON object.")
def new(company: str | None, admin: bool, as_json: bool) -> None:
    """One more key for COMPANY."""
    if admin == (company is not None):
        raise click.UsageError("Name a company, or say --admin.")
    keys = _keys()
    if company is not None:
        say_doubt(company, {each.company for each in keys.list() if each.company is not None}, nothing=False)
    _tell(keys.make(company), as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@as_json("One JSON object.")
def rotate(key_id: str, as_json: bool) -> None:
    """A new key in place of the one with this ID, which is refused from now on."""
    _tell(_keys().rotate(id_of(key_id)), as_json)


@key.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Refuse the key with this ID from now on."""
    _keys().revoke(id_of(key_id))
    click.echo(f"{id_of(key_id)} is refused from now on", err=True)
    if not any(each.company is None for each in _keys().list(None)):
        click.echo("No admin key is left: the next start of `rillfold api` makes one.", err=True)


def _tell(made: str, as_json: bool) -> None:
    if as_json:
        say_json({"id": id_of(made), "api_key": made})
    else:
        click.echo(made)
