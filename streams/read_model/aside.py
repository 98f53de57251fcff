"""Rows that Postgres refuses for what they hold: found in halves, kept by name, so that the others get in."""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, LiteralString, NamedTuple

import msgspec
import psycopg
from psycopg import AsyncCursor, sql

from projections.projection import Projection
from streams.errors import TableBroken
from streams.read_model.database import about_content, shown
from streams.read_model.schema import table_of
from streams.read_model.sink import Change, Changes, RawRow
from streams.state.refusal import KEY_BYTES, bounded

log = logging.getLogger(__name__)
SHOWN = 200
"""Characters of a key: the whole of it stands in the changelog."""
WORD, MOST, LARGEST = 128, (1 << 31) - 1, (1 << 63) - 1
"""Characters of a company, and the largest numbers of a partition and of an offset."""
_ANEW = """
    INSERT INTO {table} AS t
        (key, partition, company, row, topic, source_partition, source_offset, changelog_offset)
    SELECT key, partition, company, row, topic, source_partition, source_offset, changelog_offset
    FROM {table} LIMIT 1
    ON CONFLICT (key, partition) DO UPDATE SET row = excluded.row"""
# By name, and without the row that stood there before: what is out of date is not shown as if it were not. But a row is
# out of date only by one that is truly aside, and nothing goes aside where a newer form stands.
_KEEP = """
    WITH given AS (
        SELECT * FROM unnest(%s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],
            %s::text[], %s::text[])
        AS g(partition, key_sha256, whole, key, company, bytes, changelog_offset, state, reason)),
    kept AS (
        INSERT INTO set_aside AS a
            (projection, version, partition, key_sha256, key, company, bytes, changelog_offset, state, reason)
        SELECT %s, %s, partition, key_sha256, key, company, bytes, changelog_offset, state, reason FROM given
        WHERE NOT EXISTS (
            SELECT FROM {table} AS t WHERE t.key = given.whole AND t.partition = given.partition
            AND t.changelog_offset >= given.changelog_offset)
        ON CONFLICT (projection, version, partition, key_sha256) DO UPDATE SET
            bytes = excluded.bytes, changelog_offset = excluded.changelog_offset, state = excluded.state,
            reason = excluded.reason, told_at = now()
        WHERE a.changelog_offset <= excluded.changelog_offset
        RETURNING a.partition, a.key_sha256)
    DELETE FROM {table} AS t USING given JOIN kept USING (partition, key_sha256)
    WHERE t.key = given.whole AND t.partition = given.partition AND t.changelog_offset < given.changelog_offset"""
_TAKE_BACK = """
    DELETE FROM set_aside WHERE projection = %s AND version = %s AND partition = %s AND key_sha256 = ANY(%s)"""


class SinkRow(NamedTuple):
    """A row on its way to its table."""

    projection: Projection[Any]
    partition: int
    row: Change

    @property
    def place(self) -> tuple[str, int, int]:
        return self.projection.name, self.projection.version, self.partition


class Aside(NamedTuple):
    """A row that stays outside, and why."""

    one: SinkRow
    state: str
    """SQLSTATE."""
    reason: str


Put = Callable[[Sequence[SinkRow]], Awaitable[None]]


def of(changes: Sequence[Changes]) -> Iterator[SinkRow]:
    return (SinkRow(change.projection, change.partition, row) for change in changes for row in change.rows)


def on_table(statement: LiteralString, projection: Projection[Any]) -> sql.Composed:
    return sql.SQL(statement).format(table=sql.Identifier(table_of(projection)))


async def sift(cursor: AsyncCursor[Any], ones: Sequence[SinkRow], put: Put) -> list[Aside]:
    """Puts in what goes in. Rows are blamed only where their tables are proven to work."""
    refused = await _tried(cursor, ones, put)
    if refused is None:
        return []
    for projection in {one.projection.name: one.projection for one in ones}.values():
        await _prove(cursor, projection, put)
    return await _halved(cursor, ones, put, refused)


async def _tried(cursor: AsyncCursor[Any], ones: Sequence[SinkRow], put: Put) -> psycopg.Error | None:
    """All of them or none. Returns what Postgres says of their content."""
    try:
        async with cursor.connection.transaction():
            await put(ones)
    except psycopg.Error as error:
        if not about_content(error) or not ones:
            raise
        return error
    return None


async def _halved(cursor: AsyncCursor[Any], ones: Sequence[SinkRow], put: Put, refused: psycopg.Error) -> list[Aside]:
    if len(ones) == 1:
        return [Aside(ones[0], refused.sqlstate or "", bounded(_said(refused)))]
    aside: list[Aside] = []
    middle = len(ones) // 2
    for half in (ones[:middle], ones[middle:]):
        again = await _tried(cursor, half, put)
        if again is not None:
            aside += await _halved(cursor, half, put, again)
    return aside


async def _prove(cursor: AsyncCursor[Any], projection: Projection[Any], put: Put) -> None:
    """Else a fault of the table would empty it row by row, and each row would be blamed for it."""
    # Held until the transaction ends: nobody alters the table between this proof and what is set aside by it.
    await cursor.execute(on_table("LOCK TABLE {table} IN ROW EXCLUSIVE MODE", projection))
    try:
        async with cursor.connection.transaction(force_rollback=True):
            await cursor.execute(on_table(_ANEW, projection))
            for offset in (0, LARGEST):
                await put([canary(projection, offset)])
    except psycopg.Error as error:
        if not about_content(error):
            raise
        raise TableBroken(table_of(projection), error.sqlstate or "", _said(error)) from error


def canary(projection: Projection[Any], offset: int) -> SinkRow:
    """A row with the largest words and numbers that are legal: what refuses it refuses rows that are right."""
    company = "c" * WORD
    key = f"{company}/{'k' * (KEY_BYTES - WORD - 1)}"
    row = RawRow(("t" * WORD, MOST, LARGEST), msgspec.Raw(msgspec.json.encode({"company": company})))
    return SinkRow(projection, MOST, Change(key.encode(), offset, row))


def _said(error: psycopg.Error) -> str:
    """Its first line alone: the others quote the row."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0]


async def keep(cursor: AsyncCursor[Any], projection: Projection[Any], aside: Sequence[Aside]) -> None:
    """All of one projection, in one statement."""
    columns = [list(column) for column in zip(*map(_row_kept, aside), strict=True)]
    await cursor.execute(on_table(_KEEP, projection), (*columns, projection.name, projection.version))
    for (_, partition, row), state, reason in aside:
        log.warning(
            "Postgres does not hold a row of %s v%d, partition %d (changelog offset %d, key %r): %s. It is set aside, "
            "the others go on; `SELECT * FROM set_aside` lists such rows, and a later form that fits takes its place.",
            *(projection.name, projection.version, partition, row.offset),
            *(row.text[:SHOWN], f"{state} {reason}".strip()),
        )


def _row_kept(aside: Aside) -> tuple[int, str, str, str, str, int, int, str, str]:
    (_, partition, row), state, reason = aside
    whole = shown(row.text)
    size = len(row.value.row) if row.value is not None else 0
    key, company = whole[:SHOWN], whole.partition("/")[0][:SHOWN]
    return partition, key_digest(row.key), whole, key, company, size, row.offset, state, shown(reason)


async def take_back(cursor: AsyncCursor[Any], ones: Sequence[SinkRow]) -> None:
    """These rows fit by now, or are gone."""
    by_place: dict[tuple[str, int, int], list[str]] = {}
    for one in ones:
        by_place.setdefault(one.place, []).append(key_digest(one.row.key))
    for place, digests in by_place.items():
        await cursor.execute(_TAKE_BACK, (*place, digests))


def key_digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
