"""What an error of Postgres is about: what a row holds, a server that is away, or one that answers and cannot."""

import re

import psycopg

from schemas.errors import RillfoldError, Stop
from streams.errors import DatabaseAway, DatabaseCannot, ReadModelBroken

CONTENT = ("21", "22", "23", "54", "XX000")
"""Cardinality, data, constraints, limits of a program: what is written is at fault. An internal error may be, too."""
AWAY = ("08", "57P")
"""The connection is lost, or the server stops, starts or has dropped us."""
BROKEN = ("28", "3D", "3F", "42")
"""Somebody has to put it right: a password, a schema, a table, a privilege."""
SERVER = r'connection to server at "[^"]*"(?: \([^)]*\))?, port \d+ failed: '
ATTEMPT = rf"(?m)^(?:- host: .*?, hostaddr: .*?: )?(?:connection failed: |{SERVER})+"
"""One of several, where psycopg lists them."""
DISTRUST = (
    "SSL error: (?!.*(?:eof|alert))",  # it went away just then, or it is the one who refuses
    "server certificate for ",
    "root certificate file ",
    "could not (?:read|get home directory to locate|load system) root certificate",
    "could not get server's host name from server certificate",
    "SSL certificate's name ",
    "server does not support SSL, but SSL was required",
)
UNTRUSTED = re.compile(f"{ATTEMPT}(?:{'|'.join(DISTRUST)})")
"""As libpq itself begins its reason when it connects; such an error has no state. Names, paths and what the server says
(`FATAL:`) may hold the same words."""


class DatabaseNotTrusted(Stop):
    """Whoever answers shows no certificate that we have to believe."""

    def __init__(self, detail: object) -> None:
        super().__init__(
            f"Whoever answers as Postgres is not trusted here ({' '.join(str(detail).split())}). Nothing was said to "
            f"it. Name in RILLFOLD_POSTGRES_DSN the authority that signed its certificate (sslrootcert=) and the host "
            f"as its certificate does, have one renewed that has expired, or give it one (ssl = on)."
        )


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
    if lost and not state and UNTRUSTED.search(str(error)):
        return DatabaseNotTrusted(error)
    if state.startswith(AWAY) or (lost and not state):
        return DatabaseAway(error)
    return ReadModelBroken(state, error) if state.startswith(BROKEN) else DatabaseCannot(state, error)


def shown(text: str) -> str:
    """Postgres holds no NUL and nothing but UTF-8. What it cannot hold looks another way there, and only there."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "backslashreplace").decode()
