"""`rillfold env`: what a shell has to know, so that clients that are not ours reach the same servers."""

import shlex

import click

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.embedded.state import attach
from rillfold.settings import PREFIX, from_env


@click.command()
@as_json("One JSON object of names and values.")
def env(as_json: bool) -> None:
    """Print where the log, the read model and the API answer, as exports: eval "$(rillfold env)"

    Keys are not among them: `rillfold key` says where they lie.
    """
    settings = from_env()
    found = attach(settings)
    values = {
        "DATA_DIR": str(settings.data_dir.resolve()),
        "BOOTSTRAP_SERVERS": found.bootstrap_servers,
        **({"POSTGRES_DSN": found.postgres_dsn} if found.postgres_dsn else {}),
        "API_URL": settings.address("api"),
    }
    exports = {f"{PREFIX}{name}": value for name, value in values.items()}
    if as_json:
        say_json(exports)
        return
    for name, value in exports.items():
        click.echo(f"export {name}={shlex.quote(value)}")
