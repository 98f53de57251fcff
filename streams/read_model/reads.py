"""The read side of the Postgres sink: rows, and how far they know the log. Topics are named as on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import reduce
from itertools import groupby
from typing import Any, NamedTuple, Self

import msgspec
import psycopg
from psycopg import sql

from projections.projection import Projection
from streams.errors import DatabaseAway, NoReadModel
from streams.read_model.database import named, shown
from streams.read_model.schema import table_of

CONNECTIONS = 8
PAGE_BYTES = 4 << 20
Positions = Mapping[str, Mapping[int, int]]
Connection = psycopg.AsyncConnection[Any]


_ONE = sql.SQL("""
    SELECT key, row, topic, source_partition, source_offset FROM {table} WHERE key = %(key)s ORDER BY partition""")
_PAGE = sql.SQL("""
    SELECT key, row, topic, source_partition, source_offset FROM {table} WHERE key IN (
        SELECT DISTINCT key FROM {table}
        WHERE key > %(after)s AND (%(company)s::text IS NULL OR company = %(company)s) ORDER BY key LIMIT %(limit)s
    ) ORDER BY key, partition""")
# The keys of _PAGE; without their rows after so many bytes of rows. The first has its row, however large.
_PAGE_OF_BYTES = sql.SQL("""
    SELECT key, CASE WHEN before < %(bytes)s THEN row END, topic, source_partition, source_offset FROM (
        SELECT *, coalesce(sum(octet_length(row::text)) OVER (
            ORDER BY key GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ), 0) AS before FROM {table} WHERE key IN (
            SELECT DISTINCT key FROM {table}
            WHERE key > %(after)s AND (%(company)s::text IS NULL OR company = %(company)s) ORDER BY key LIMIT %(limit)s
        )
    ) AS page ORDER BY key, partition""")
_CHANGED = sql.SQL("""
    SELECT key, row, topic, source_partition, source_offset FROM {table}
    JOIN unnest(%(topics)s::text[], %(partitions)s::int[], %(starts)s::bigint[]) AS since(t, p, start)
    ON topic = t AND source_partition = p AND source_offset >= start
    WHERE (%(company)s::text IS NULL OR company = %(company)s) ORDER BY key, partition""")
_POSITIONS = sql.SQL("SELECT topic, partition, next FROM {positions} WHERE projection = %s AND version = %s")


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int


class Row(NamedTuple):
    key: str
    value: dict[str, Any]
    at: Place
    """The last event that changed the row."""


class Page(NamedTuple):
    rows: list[Row]
    next: str | None
    """The key after which the next page begins; None: there is none."""


class Reads:
    """Opens connections when they are first needed, and keeps some."""

    def __init__(self, dsn: str | None, schema: str) -> None:
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
        found = await self._rows(projection, _ONE, {"key": key})
        return found[0] if found else None

    async def rows(self, projection: Projection[Any], company: str | None, after: str | None, limit: int) -> list[Row]:
        """In the order of their keys, from the first above `after`."""
        return await self._rows(projection, _PAGE, {"after": after or "", "company": company, "limit": limit})

    async def page(self, projection: Projection[Any], company: str | None, after: str | None, limit: int) -> Page:
        """As `rows`, but no more of them than a process can hold for many who ask."""
        given = {"after": after or "", "company": company, "limit": limit, "bytes": PAGE_BYTES}
        found = await self._rows(projection, _PAGE_OF_BYTES, given)
        rows = [row for row in found if row.value is not None]
        more = len(rows) < len(found) or len(found) == limit
        return Page(rows, rows[-1].key if rows and more else None)

    async def positions(self, projection: Projection[Any]) -> dict[str, dict[int, int]]:
        """The next offset of each source partition: everything below it is in the rows."""
        async with self._connected() as connection:
            return await self._positions(connection, projection)

    async def changed(
        self, projection: Projection[Any], company: str | None, since: Positions
    ) -> tuple[list[Row], dict[str, dict[int, int]]]:
        """The rows that events from `since` on have changed, and the positions that they are complete up to."""
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
            return await self._read(connection, projection, _CHANGED, given), now

    async def _positions(self, connection: Connection, projection: Projection[Any]) -> dict[str, dict[int, int]]:
        query = _POSITIONS.format(positions=sql.Identifier(self._schema, "positions"))
        cursor = await connection.execute(query, (projection.name, projection.version))
        found: dict[str, dict[int, int]] = {}
        for topic, partition, following in await cursor.fetchall():
            found.setdefault(topic, {})[partition] = following
        return found

    async def _rows(self, projection: Projection[Any], query: sql.SQL, given: Mapping[str, Any]) -> list[Row]:
        async with self._connected() as connection:
            return await self._read(connection, projection, query, given)

    async def _read(
        self, connection: Connection, projection: Projection[Any], query: sql.SQL, given: Mapping[str, Any]
    ) -> list[Row]:
        table = sql.Identifier(self._schema, table_of(projection))
        asked = {name: shown(value) if isinstance(value, str) else value for name, value in given.items()}
        cursor = await connection.execute(query.format(table=table), asked)
        parts = [Row(key, value, Place(*at)) for key, value, *at in await cursor.fetchall()]
        return [_whole(projection, list(same)) for _, same in groupby(parts, key=lambda row: row.key)]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with self._slots:
            connection = self._free.pop() if self._free else await self._open()
            try:
                yield connection
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
                raise NoReadModel(self._schema) from error
            except psycopg.OperationalError as error:
                raise named(error) from error
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


def _whole(projection: Projection[Any], parts: list[Row]) -> Row:
    """A row whose key rule spreads it over partitions is put together; its place is one of theirs."""
    if len(parts) == 1 or projection.merge is None or parts[-1].value is None:
        return parts[-1]
    states = (msgspec.convert(part.value, projection.state) for part in parts)
    return parts[-1]._replace(value=msgspec.to_builtins(reduce(projection.merge, states)))
