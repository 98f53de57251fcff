"""`rillfold settings`: what is in force here, and who says so."""

import click

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.plain import plain
from rillfold.settings import in_force


@click.command()
@click.option("--set", "given", is_flag=True, help="Only those that the environment sets.")
@as_json("One JSON object: names, each with its value and its source.")
def settings(given: bool, as_json: bool) -> None:
    """Print each setting as a command of this shell reads it. Secrets are not shown."""
    found = [each for each in in_force() if each.source or not given]
    if as_json:
        say_json({each.name: {"value": each.value, "source": each.source} for each in found})
        return
    for name, value, source in found:
        said = "" if value is None else value
        click.echo(plain(f"{name}={said}" + (f"    ({source})" if source else "")))
