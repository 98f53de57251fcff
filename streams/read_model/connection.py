"""How Postgres is reached, by whoever writes and whoever asks."""

import asyncio
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.waiting import wait_async

from streams.errors import UnreadableDsn

LOOK_SECONDS = 0.1
REACHED: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A machine that is cut off sends no word of it: the kernel asks, and ends it. The DSN may say otherwise."""


def reached(dsn: str) -> dict[str, Any]:
    try:
        return REACHED | conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise UnreadableDsn from error  # the text of it may hold a password


class Asking(psycopg.AsyncConnection[Any]):
    """A question that is given up ends its connection. psycopg would ask the server to cancel it: one that may hang."""

    async def wait(self, gen: PQGen[RV], interval: float = LOOK_SECONDS, timeout: float | None = None) -> RV:
        try:
            return await wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise
