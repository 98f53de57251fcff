"""The Postgres read model. Rows, positions and epoch move in one transaction, so that each is as true as the others."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, sql

from projections.projection import Projection
from streams.errors import Fenced
from streams.read_model.aside import Aside, SinkRow, keep, of, on_table, sift, take_back
from streams.read_model.connection import reached
from streams.read_model.database import named, shown
from streams.read_model.schema import statements
from streams.read_model.sink import Changes
from streams.read_model.views import show
from streams.state.refusal import Refusal, bounded

Item = TypeVar("Item")
MIGRATION_LOCK = 4_711_001
LINES = 2_000
"""As many rows are put into words, or refusals sent, at once."""

# Postgres holds no NUL, neither in text nor in jsonb: it becomes the replacement character here, and only here.
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_INCOMING = """
    CREATE TEMP TABLE IF NOT EXISTS incoming (
        projection text, key text, partition int, company text, row jsonb,
        topic text, source_partition int, source_offset bigint, changelog_offset bigint) ON COMMIT DELETE ROWS"""
_UPSERT = """
    INSERT INTO {table} AS t
        (key, partition, company, row, topic, source_partition, source_offset, changelog_offset)
    SELECT key, partition, company, row, topic, source_partition, source_offset, changelog_offset
    FROM incoming WHERE projection = %s
    ON CONFLICT (key, partition) DO UPDATE SET
        company = excluded.company, row = excluded.row, topic = excluded.topic,
        source_partition = excluded.source_partition, source_offset = excluded.source_offset,
        changelog_offset = excluded.changelog_offset
    WHERE t.changelog_offset < excluded.changelog_offset"""
_REFUSED = """
    INSERT INTO refused (projection, version, topic, partition, "offset", company, event, reason, detail)
    SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[],
        %s::text[]) ON CONFLICT (projection, version, topic, partition, "offset")
    DO UPDATE SET company = excluded.company, event = excluded.event, reason = excluded.reason,
        detail = excluded.detail"""
_TAKEN_BACK = """
    DELETE FROM refused USING unnest(%s::text[], %s::int[], %s::bigint[]) AS gone (topic, partition, "offset")
    WHERE refused.topic = gone.topic AND refused.partition = gone.partition AND refused."offset" = gone."offset"
        AND projection = %s AND version = %s"""
_POSITION = """
    INSERT INTO positions (projection, version, topic, partition, next) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (projection, version, topic, partition) DO UPDATE SET next = excluded.next, updated_at = now()"""


class PostgresSink:
    """One connection. When it breaks, the next call makes another, and the caller takes its partitions anew."""

    def __init__(self, dsn: str, projections: Sequence[Projection[Any]], schema: str) -> None:
        self._dsn, self._projections, self._schema = dsn, list(projections), schema
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None
        self._epochs: dict[tuple[str, int], int] = {}
        self._turn = asyncio.Lock()
        self._with_aside: set[tuple[str, int, int]] = set()
        """Projections and partitions of which rows are set aside: others need not be looked through."""
        self.set_aside = 0
        self.beats = 0

    async def __aenter__(self) -> Self:
        try:
            await self.migrate()
        except BaseException:
            await self._drop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    async def migrate(self) -> None:
        async with self._transaction() as cursor:
            await cursor.execute(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            for statement in statements(self._schema, self._projections):
                await cursor.execute(statement.encode())
            # From here on whoever reads them waits.
            for projection in self._projections:
                await show(cursor, self._schema, projection)

    async def take(self, changelog: str, partition: int) -> int:
        async with self._transaction() as cursor:
            await cursor.execute(
                "INSERT INTO sink_positions AS p (changelog, partition, epoch) VALUES (%s, %s, 1) "
                "ON CONFLICT (changelog, partition) DO UPDATE SET epoch = p.epoch + 1 RETURNING next, epoch",
                (changelog, partition),
            )
            row = await cursor.fetchone()
            await self._look_aside(cursor)
        assert row is not None
        next_, self._epochs[changelog, partition] = row
        return int(next_)

    async def empty(self, projection: Projection[Any], changelog: str, partition: int) -> None:
        async with self._transaction() as cursor:
            await self._advance(cursor, Changes(projection, changelog, partition, 0, (), ()))
            await cursor.execute(on_table("DELETE FROM {table} WHERE partition = %s", projection), (partition,))
            for beside in map(sql.Identifier, ("positions", "refused", "set_aside")):
                delete = sql.SQL("DELETE FROM {beside} WHERE projection = %s AND version = %s AND partition = %s")
                place = (projection.name, projection.version, partition)
                await cursor.execute(delete.format(beside=beside), place)

    async def write(self, changes: Sequence[Changes]) -> None:
        async with self._transaction() as cursor:
            # The positions come first: their row locks make a second holder wait, and then see that it is late.
            for change in changes:
                await self._advance(cursor, change)
                await self._refuse(cursor, change)
            await cursor.execute(_INCOMING)
            ones = list(of(changes))
            rows = [one for one in ones if one.row.value is not None]
            aside = [Aside(one, "", one.row.unreadable) for one in ones if one.row.unreadable]
            aside += await sift(cursor, rows, partial(self._put, cursor))
            for change in changes:
                await self._remove(cursor, change)
            await self._keep_aside(cursor, ones, aside)
        self.set_aside += len(aside)

    async def _put(self, cursor: AsyncCursor[Any], ones: Sequence[SinkRow]) -> None:
        self.beats += 1
        await cursor.execute("DELETE FROM incoming")
        async with cursor.copy("COPY incoming FROM STDIN") as copy:
            for some in _parts(ones):
                await copy.write(b"".join(map(_line, some)))
        for projection in {one.projection.name: one.projection for one in ones}.values():
            await cursor.execute(on_table(_UPSERT, projection), (projection.name,))

    async def _keep_aside(self, cursor: AsyncCursor[Any], ones: Sequence[SinkRow], aside: Sequence[Aside]) -> None:
        outside = {id(each.one) for each in aside}
        back = [one for one in ones if id(one) not in outside and one.place in self._with_aside]
        if back:
            await take_back(cursor, back)
        by_projection: dict[str, list[Aside]] = {}
        for each in aside:
            by_projection.setdefault(each.one.projection.name, []).append(each)
        for all_ in by_projection.values():
            for some in self._beating(all_):
                await keep(cursor, all_[0].one.projection, some)
        if back or aside:
            await self._look_aside(cursor)

    async def _look_aside(self, cursor: AsyncCursor[Any]) -> None:
        await cursor.execute("SELECT DISTINCT projection, version, partition FROM set_aside")
        self._with_aside = {(projection, version, partition) async for projection, version, partition in cursor}

    async def _refuse(self, cursor: AsyncCursor[Any], change: Changes) -> None:
        where = change.projection.name, change.projection.version
        for gone in self._beating(change.taken_back):
            columns = [list(column) for column in zip(*gone, strict=True)]
            await cursor.execute(_TAKEN_BACK, [*columns, *where])
        for some in self._beating(change.refused):
            of_places = {row[:5]: row for row in map(_row_refused, some)}
            await cursor.execute(_REFUSED, [list(column) for column in zip(*of_places.values(), strict=True)])

    async def _advance(self, cursor: AsyncCursor[Any], change: Changes) -> None:
        changelog = change.changelog
        epoch = self._epochs.get((changelog, change.partition))
        await cursor.execute(
            "UPDATE sink_positions SET next = %s WHERE changelog = %s AND partition = %s AND epoch = %s",
            (change.next, changelog, change.partition, epoch),
        )
        if cursor.rowcount != 1:
            raise Fenced("of sinks", f"{changelog}/{change.partition}")
        where = change.projection.name, change.projection.version
        for some in self._beating(change.markers):
            await cursor.executemany(_POSITION, [(*where, each.topic, each.partition, each.next) for each in some])

    async def _remove(self, cursor: AsyncCursor[Any], change: Changes) -> None:
        gone = [shown(row.text) for row in change.rows if row.value is None and not row.unreadable]
        if gone:
            delete = on_table("DELETE FROM {table} WHERE key = ANY(%s) AND partition = %s", change.projection)
            await cursor.execute(delete, (gone, change.partition))

    def _beating(self, them: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Part by part, each a sign that the write gets on."""
        for some in _parts(them):
            self.beats += 1
            yield some

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncCursor[Any]]:
        """One at a time. What is the world's fault is named, and tried again."""
        async with self._turn:
            try:
                connection = await self._connect()
                async with connection.transaction(), connection.cursor() as cursor:
                    yield cursor
            except psycopg.Error as error:
                await self._drop()
                raise named(error) from error

    async def _connect(self) -> AsyncConnection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._epochs.clear()
            self._connection = await AsyncConnection.connect(**reached(self._dsn), autocommit=True)
            await self._connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._schema)))
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        self._connection = None


def _parts(them: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (them[first : first + LINES] for first in range(0, len(them), LINES))


def _row_refused(refused: Refusal) -> tuple[str, int, str, int, int, str, str, str, str]:
    where = shown(refused.projection), refused.version, shown(refused.topic), refused.partition, refused.offset
    company, event = shown(bounded(refused.company)), shown(bounded(refused.event))
    return *where, company, event, shown(refused.reason), shown(refused.detail)


def _line(one: SinkRow) -> bytes:
    """COPY's text form. Our JSON holds no raw tabs or newlines, so that only its backslashes need care."""
    projection, partition, row = one
    assert row.value is not None
    topic, source_partition, offset = row.value.at
    key = _copied(row.key if row.key.isascii() and b"\x00" not in row.key else shown(row.text).encode())
    company = key.partition(b"/")[0]
    json = _json(bytes(row.value.row)).replace(b"\\", b"\\\\")
    where = partition, company, json, _topic(topic), source_partition, offset, row.offset
    return b"%b\t%b\t%d\t%b\t%b\t%b\t%d\t%d\t%d\n" % (projection.name.encode(), key, *where)


@lru_cache(256)
def _topic(name: str) -> bytes:
    return _copied(shown(name).encode())


def _json(raw: bytes) -> bytes:
    return _NUL.sub(rb"\1\\ufffd", raw) if b"\\u0000" in raw else raw


def _copied(raw: bytes) -> bytes:
    return raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
