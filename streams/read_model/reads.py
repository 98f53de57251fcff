"""The read side of the Postgres sink: rows, and how far they know the log. Topics are named as on the wire."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from typing import Any, NamedTuple, Self

import msgspec
from psycopg import sql

from projections.projection import Projection
from streams.read_model.connection import Asking
from streams.read_model.database import shown
from streams.read_model.feed import FeedStep, Positions, Span, reached, spans
from streams.read_model.questions import DatabaseTurns
from streams.read_model.schema import table_of

ANSWER_SECONDS = 30.0
"""Within which a question of the API is answered, or given up."""
PAGE_BYTES = 4 << 20
CHANGES = 200
"""Rows that a feed is told of at once."""


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
# The index on company and place serves each of these look-ups, and an event changes one row: a place names one row.
_STEPS = sql.SQL("""
    SELECT source_offset - start, span - 1, key
    FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(starts)s::bigint[], %(stops)s::bigint[])
        WITH ORDINALITY AS spans(t, p, start, stop, span)
    CROSS JOIN unnest(%(companies)s::text[]) AS one
    CROSS JOIN LATERAL (
        SELECT key, source_offset FROM {table}
        WHERE company = one AND topic = t AND source_partition = p AND source_offset >= start AND source_offset < stop
        ORDER BY source_offset LIMIT %(limit)s
    ) AS changed
    ORDER BY 1, 2 LIMIT %(limit)s""")
_COMPANIES = sql.SQL("""
    WITH RECURSIVE known(one) AS (
        SELECT min(company) FROM {table}
        UNION ALL SELECT (SELECT min(company) FROM {table} WHERE company > one) FROM known WHERE one IS NOT NULL
    ) SELECT one FROM known WHERE one IS NOT NULL""")
# All parts of each row, in the order of the keys; bounded as a page is.
_CHANGED = sql.SQL("""
    SELECT key, CASE WHEN before < %(bytes)s THEN row END, topic, source_partition, source_offset FROM (
        SELECT t.*, nth, coalesce(sum(octet_length(row::text)) OVER (
            ORDER BY nth GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ), 0) AS before FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS changed(k, nth) JOIN {table} AS t ON t.key = k
    ) AS page ORDER BY nth, partition""")
_POSITIONS = sql.SQL("SELECT topic, partition, next FROM {positions} WHERE projection = %s AND version = %s")


class EventPlace(NamedTuple):
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class ProjectedRow:
    key: str
    json: bytes
    at: EventPlace
    """The last event that changed the row."""

    @cached_property
    def value(self) -> dict[str, Any]:
        """Read when it is asked for: a page of small values takes long, and everybody waits meanwhile."""
        read: dict[str, Any] = msgspec.json.decode(self.json)
        return read

    @property
    def compact(self) -> msgspec.Raw:
        """For an answer that holds it as it is."""
        return msgspec.Raw(msgspec.json.format(self.json, indent=-1))


class Page(NamedTuple):
    rows: list[ProjectedRow]
    next: str | None
    """The key after which the next page begins; None: there is none."""


class Changed(NamedTuple):
    rows: list[ProjectedRow]
    next: Positions
    """Where to go on: everything below it was told."""
    more: bool
    """There was no room for all of it."""


class Reads:
    """Companies take turns at asking."""

    def __init__(self, dsn: str | None, schema: str, seconds: float = 0) -> None:
        """What takes Postgres longer is given up: others may wait for its turn. 0: nobody does."""
        self._schema, self._questions = schema, DatabaseTurns(dsn, schema, seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._questions.close()

    async def ping(self) -> None:
        await self._questions.ping()

    async def row(self, projection: Projection[Any], key: str) -> ProjectedRow | None:
        found = await self._rows(projection, _ONE, {"key": key, "company": key.partition("/")[0]})
        return found[0] if found else None

    async def rows(
        self, projection: Projection[Any], company: str | None, after: str | None, limit: int
    ) -> list[ProjectedRow]:
        """In the order of their keys, from the first above `after`."""
        return await self._rows(projection, _PAGE, {"after": after or "", "company": company, "limit": limit})

    async def page(self, projection: Projection[Any], company: str | None, after: str | None, limit: int) -> Page:
        """As `rows`, but no more of them than a process can hold for many who ask."""
        given = {"after": after or "", "company": company, "limit": limit, "bytes": PAGE_BYTES}
        found = await self._rows(projection, _PAGE_OF_BYTES, given)
        rows = [row for row in found if row.json is not None]
        more = len(rows) < len(found) or len(found) == limit
        return Page(rows, rows[-1].key if rows and more else None)

    async def positions(self, projection: Projection[Any], company: str | None) -> dict[str, dict[int, int]]:
        """The next offset of each source partition: everything below it is in the rows. The same for every company."""
        return await self._questions.ask(company, lambda connection: self._positions(connection, projection))

    async def changed(self, projection: Projection[Any], company: str | None, since: Positions) -> Changed:
        """The rows that events from `since` on have changed, each once; no more of them than a page holds.

        One that is spread over partitions is whole, and may come once more when a page ends between two of its changes.
        """
        return await self._questions.ask(
            company, lambda connection: self._changed(connection, projection, company, since)
        )

    async def _changed(
        self, connection: Asking, projection: Projection[Any], company: str | None, since: Positions
    ) -> Changed:
        async with connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            now = await self._positions(connection, projection)
            through = spans(since, now)
            steps = await self._steps(connection, projection, company, through) if through else []
            given = {"keys": list(dict.fromkeys(key for _, key in steps)), "bytes": PAGE_BYTES}
            found = await self._read(connection, projection, _CHANGED, given) if steps else []
        rows = [row for row in found if row.json is not None]
        cut = _cut(steps, {row.key for row in rows})
        return Changed(rows, reached(now, through, cut), cut is not None)

    async def _steps(
        self, connection: Asking, projection: Projection[Any], company: str | None, through: Sequence[Span]
    ) -> list[tuple[FeedStep, str]]:
        """Where keys were changed, in the order in which they are told."""
        companies: list[str] = [shown(company)] if company is not None else []
        if company is None:
            companies = [one for (one,) in await self._asked(connection, projection, _COMPANIES, {})]
        columns = zip(("topics", "partitions", "starts", "stops"), map(list, zip(*through, strict=True)), strict=True)
        given = dict(columns) | {"companies": companies, "limit": CHANGES}
        found = await self._asked(connection, projection, _STEPS, given)
        return [(FeedStep(ahead, span), key) for ahead, span, key in found]

    async def _positions(self, connection: Asking, projection: Projection[Any]) -> dict[str, dict[int, int]]:
        query = _POSITIONS.format(positions=sql.Identifier(self._schema, "positions"))
        cursor = await connection.execute(query, (projection.name, projection.version))
        found: dict[str, dict[int, int]] = {}
        for topic, partition, following in await cursor.fetchall():
            found.setdefault(topic, {})[partition] = following
        return found

    async def _rows(self, projection: Projection[Any], query: sql.SQL, given: Mapping[str, Any]) -> list[ProjectedRow]:
        company = given["company"]
        return await self._questions.ask(company, lambda connection: self._read(connection, projection, query, given))

    async def _read(
        self, connection: Asking, projection: Projection[Any], query: sql.SQL, given: Mapping[str, Any]
    ) -> list[ProjectedRow]:
        found = await self._asked(connection, projection, query, given)
        parts = [ProjectedRow(key, json, EventPlace(*at)) for key, json, *at in found]
        return [_whole(projection, list(same)) for _, same in groupby(parts, key=lambda row: row.key)]

    async def _asked(
        self, connection: Asking, projection: Projection[Any], query: sql.SQL, given: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        table = sql.Identifier(self._schema, table_of(projection))
        asked = {name: shown(value) if isinstance(value, str) else value for name, value in given.items()}
        return await (await connection.execute(query.format(table=table), asked)).fetchall()


def _cut(steps: Sequence[tuple[FeedStep, str]], told: Set[str]) -> FeedStep | None:
    """The first row that had no room; or behind the last one, where more may follow."""
    untold = next((step for step, key in steps if key not in told), None)
    if untold is not None or len(steps) < CHANGES:
        return untold
    last, _ = steps[-1]
    return last._replace(span=last.span + 1)


def _whole(projection: Projection[Any], parts: list[ProjectedRow]) -> ProjectedRow:
    """A row whose key rule spreads it over partitions is put together; its place is one of theirs."""
    if len(parts) == 1 or projection.merge is None or parts[-1].json is None:
        return parts[-1]
    states = (msgspec.convert(part.value, projection.state) for part in parts)
    return replace(parts[-1], json=msgspec.json.encode(reduce(projection.merge, states)))
