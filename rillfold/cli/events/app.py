"""`rillfold app`: what applications of one's own add, whether it can be taken, and what is on record of it."""

import click

from rillfold.app.app import App
from rillfold.app.found import apps_of, with_apps
from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.cli.terminal.verbs import Verbs
from rillfold.settings import from_env
from schemas.codec.catalog import kind_of
from schemas.errors import Stop


@click.group(cls=Verbs)
def app() -> None:
    """An application of your own, which RILLFOLD_APP names: check it, and write down what must not change."""


@app.command()
@as_json("One JSON list for machines.")
def check(as_json: bool) -> None:
    """Load it as every process does at its start: exit 0 where it can be taken, 1 with the place where not."""
    found = _apps()
    with_apps(found)
    if as_json:
        say_json([{"app": each.name, "adds": _adds(each)} for each in found])
        return
    for each in found:
        click.echo(f"{each.name}: can be taken.")
        for what, names in _adds(each).items():
            click.echo(f"  {what}: {', '.join(names) or 'none'}")


@app.command()
def record() -> None:
    """Write down the schemas of new events and the shape of new states, in `recorded/` beside the application.

    Keep that folder with your code. What stands there is never changed: records were written with it.
    """
    for each in _apps():
        written = each.record()
        for name in written:
            click.echo(f"wrote {each.records.folder / name}" if name.endswith(".avsc") else f"recorded {name}")
        with_apps([each])
        if not written:
            click.echo(f"{each.name}: all is on record.")


def _apps() -> list[App]:
    found = apps_of(from_env().app)
    if not found:
        raise Stop("No application is named: set RILLFOLD_APP to its module, such as shop.app, or install its package.")
    return found


def _adds(found: App) -> dict[str, list[str]]:
    topics, events = [*found.topics], [str(kind_of(each)) for each in found.events]
    projections = [f"{each.name}.v{each.version}" for each in found.projections.values()]
    reactions = [f"{each.name}.v{each.version}" for each in found.reactions.values()]
    return {
        "topics": topics,
        "events": events,
        "projections": projections,
        "reactions": reactions,
        "rules": [*found.rules],
        "auths": [*found.auths],
    }
