"""The read side of the Postgres sink: rows, and how far they know the log.

Stands on what the sink keeps in its schema: one table a projection version, `<name>_v<version>` (key, company, row,
topic, partition, offset: the row and the event that changed it last), and `positions` (projection, version, topic,
partition, next), written in the same transaction. Topics are our names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import sql

from projections.projection import Projection
from streams.errors import DatabaseAway

CONNECTIONS = 8
Positions = Mapping[str, Mapping[int, int]]
Connection = psycopg.AsyncConnection[Any]


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int


class Row(NamedTuple):
    key: str
    value: dict[str, Any]
    at: Place
    """The last event that changed the row."""


class Reads:
    """Opens connections when they are first needed, and keeps some."""

    def __init__(self, dsn: str | None, schema: str = "rillfold") -> None:
        self._dsn = dsn
        self._schema = schema
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._free:
            await self._free.pop().close()

    async def ping(self) -> None:
        async with self._connected() as connection:
            await connection.execute("SELECT 1")

    async def row(self, projection: Projection[Any], key: str) -> Row | None:
        query = self._select(projection, "WHERE key = %(key)s")
        found = await self._rows(query, {"key": key})
        return found[0] if found else None

    async def rows(self, projection: Projection[Any], company: str | None, after: str | None, limit: int) -> list[Row]:
        """In the order of their keys, from the first above `after`."""
        mine = "(%(company)s::text IS NULL OR company = %(company)s)"
        which = f"WHERE key > %(after)s AND {mine} ORDER BY key LIMIT %(limit)s"
        given = {"after": after or "", "company": company, "limit": limit}
        return await self._rows(self._select(projection, which), given)

    async def positions(self, projection: Projection[Any]) -> dict[str, dict[int, int]]:
        """The next offset of each source partition: everything below it is in the rows."""
        async with self._connected() as connection:
            return await self._positions(connection, projection)

    async def changed(
        self, projection: Projection[Any], company: str | None, since: Positions
    ) -> tuple[list[Row], dict[str, dict[int, int]]]:
        """The rows that events from `since` on have changed, and the positions that they are complete up to."""
        which = """JOIN unnest(%(topics)s::text[], %(partitions)s::int[], %(starts)s::bigint[]) AS since(t, p, start)
            ON topic = t AND partition = p AND "offset" >= start
            WHERE (%(company)s::text IS NULL OR company = %(company)s) ORDER BY topic, partition, "offset" """
        async with self._connected() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            now = await self._positions(connection, projection)
            places = [(t, p, since.get(t, {}).get(p, 0)) for t, partitions in now.items() for p in partitions]
            given = {
                "topics": [topic for topic, _, _ in places],
                "partitions": [partition for _, partition, _ in places],
                "starts": [start for _, _, start in places],
                "company": company,
            }
            cursor = await connection.execute(self._select(projection, which), given)
            return [_row(found) for found in await cursor.fetchall()], now

    async def _positions(self, connection: Connection, projection: Projection[Any]) -> dict[str, dict[int, int]]:
        query = sql.SQL("SELECT topic, partition, next FROM {} WHERE projection = %s AND version = %s").format(
            sql.Identifier(self._schema, "positions")
        )
        cursor = await connection.execute(query, (projection.name, projection.version))
        found: dict[str, dict[int, int]] = {}
        for topic, partition, following in await cursor.fetchall():
            found.setdefault(topic, {})[partition] = following
        return found

    def _select(self, projection: Projection[Any], which: str) -> sql.Composed:
        table = sql.Identifier(self._schema, f"{projection.name}_v{projection.version}")
        return sql.SQL('SELECT key, row, topic, partition, "offset" FROM {} ').format(table) + sql.SQL(which)

    async def _rows(self, query: sql.Composed, given: Mapping[str, Any]) -> list[Row]:
        async with self._connected() as connection:
            cursor = await connection.execute(query, given)
            return [_row(found) for found in await cursor.fetchall()]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with self._slots:
            connection = self._free.pop() if self._free else await self._open()
            try:
                yield connection
            except psycopg.OperationalError as error:
                raise DatabaseAway(error) from error
            finally:
                if connection.closed or connection.broken:
                    await connection.close()
                else:
                    self._free.append(connection)

    async def _open(self) -> Connection:
        if self._dsn is None:
            raise DatabaseAway("no DSN is set")
        try:
            return await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            raise DatabaseAway(error) from error


def _row(found: tuple[Any, ...]) -> Row:
    key, value, *at = found
    return Row(key, value, Place(*at))
