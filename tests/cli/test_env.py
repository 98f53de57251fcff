"""`rillfold env` goes into shells, their histories and logs: what lets somebody in is not in it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from rillfold.cli import rillfold

OPEN = "host=db.example.com dbname=rillfold user=north passfile=/etc/rillfold/pgpass"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://north:hidden-word@db.example.com/rillfold",
        "postgresql://north@db.example.com/rillfold?password=hidden-word",
        "host=db.example.com password=hidden-word",
        "host=db.example.com sslpassword='hidden-word'",
        "no such thing, hidden-word",
    ],
)
@pytest.mark.parametrize("line", [["env"], ["env", "--json"]])
def test_a_password_of_the_database_is_not_printed(dsn: str, line: list[str]) -> None:
    done = CliRunner().invoke(rillfold, line, env=environment(dsn))
    assert done.exit_code == 0, done.output
    assert "hidden-word" not in done.output and "POSTGRES_DSN=" not in done.stdout
    assert "RILLFOLD_POSTGRES_DSN holds a password" in done.stderr
    assert "RILLFOLD_BOOTSTRAP_SERVERS" in done.stdout


def test_where_the_database_is_without_one_is_printed() -> None:
    done = CliRunner().invoke(rillfold, ["env", "--json"], env=environment(OPEN))
    assert json.loads(done.stdout)["RILLFOLD_POSTGRES_DSN"] == OPEN and not done.stderr


def environment(dsn: str) -> dict[str, str]:
    return {
        "RILLFOLD_PROVIDER": "external",
        "RILLFOLD_BOOTSTRAP_SERVERS": "kafka.example.com:9094",
        "RILLFOLD_POSTGRES_DSN": dsn,
    }
