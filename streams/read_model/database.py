"""What an error of Postgres is about: what a row holds, a server that is away, or one that answers and cannot."""

import psycopg

from schemas.errors import RillfoldError
from streams.errors import DatabaseAway, DatabaseCannot, ReadModelBroken

CONTENT = ("21", "22", "23", "54", "XX000")
"""Cardinality, data, constraints, limits of a program: what is written is at fault. An internal error may be, too."""
AWAY = ("08", "57P")
"""The connection is lost, or the server stops, starts or has dropped us."""
BROKEN = ("28", "3D", "3F", "42")
"""Somebody has to put it right: a password, a schema, a table, a privilege."""


def about_content(error: psycopg.Error) -> bool:
    """Whether one of the rows is to blame. What never reached the server has no state, and is not known to be."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.DataError)
    return state.startswith(CONTENT)


def named(error: psycopg.Error) -> RillfoldError:
    """The error for whoever called."""
    state = error.sqlstate or ""
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if state.startswith(AWAY) or (lost and not state):
        return DatabaseAway(error)
    return ReadModelBroken(state, error) if state.startswith(BROKEN) else DatabaseCannot(state, error)


def shown(text: str) -> str:
    """Postgres holds no NUL and nothing but UTF-8. What it cannot hold looks another way there, and only there."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "backslashreplace").decode()
