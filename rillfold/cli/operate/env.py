"""`rillfold env`: what a shell has to know, so that clients that are not ours reach the same servers."""

import shlex

import click

from rillfold.cli.terminal.answers import as_json, say_json
from rillfold.embedded.state import attach
from rillfold.kafka_access import OF_LOGIN, OF_TLS
from rillfold.settings import PREFIX, Settings, from_env

OPEN = "PLAINTEXT"
WAY_IN = ("kafka_security", "kafka_mechanism", *OF_LOGIN, *OF_TLS)

HIDDEN = f"""{PREFIX}POSTGRES_DSN holds a password and is not printed: it stands in the environment of this command.
With passfile= in its stead it would be."""


@click.command()
@as_json("One JSON object of names and values.")
def env(as_json: bool) -> None:
    """Print where the log, the read model and the API answer, as exports: eval "$(rillfold env)"

    Keys and passwords are not among them: `rillfold key` says where keys lie, and who has a database with a password
    has told this shell already.
    """
    settings = from_env()
    found = attach(settings)
    hidden = bool(found.postgres_dsn) and _with_password(found.postgres_dsn or "")
    values = {
        "DATA_DIR": str(settings.data_dir.resolve()),
        "BOOTSTRAP_SERVERS": found.bootstrap_servers,
        **_way_in(settings),
        **({"POSTGRES_DSN": found.postgres_dsn} if found.postgres_dsn and not hidden else {}),
        "API_URL": settings.address("api"),
    }
    exports = {f"{PREFIX}{name}": value for name, value in values.items()}
    if hidden:
        click.echo(HIDDEN, err=True)
    if as_json:
        say_json(exports)
        return
    for name, value in exports.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _way_in(settings: Settings) -> dict[str, str]:
    """To a Kafka whose door is not open: files by their names, never what stands in them."""
    if settings.kafka_security == OPEN:
        return {}
    given = {name.upper(): getattr(settings, name) for name in WAY_IN}
    return {name: str(value) for name, value in given.items() if value is not None}


def _with_password(dsn: str) -> bool:
    """One that nobody can read may hold anything."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return any(conninfo_to_dict(dsn).get(name) for name in ("password", "sslpassword"))
    except psycopg.Error:
        return True
