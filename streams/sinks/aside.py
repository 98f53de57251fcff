"""Rows that Postgres refuses for what they hold: found in halves, kept by name, so that the others get in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncCursor, sql

from projections.projection import Projection
from streams.refusal import bounded
from streams.sinks.database import about_content, shown
from streams.sinks.schema import table_of
from streams.sinks.sink import Change, Changes

log = logging.getLogger(__name__)
SHOWN = 200
"""Characters of a key: the whole of it stands in the changelog."""
_KEEP = """
    INSERT INTO set_aside AS a
        (projection, version, partition, key_sha256, key, company, bytes, changelog_offset, state, reason)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (projection, version, partition, key_sha256) DO UPDATE SET
        bytes = excluded.bytes, changelog_offset = excluded.changelog_offset, state = excluded.state,
        reason = excluded.reason, told_at = now()
    WHERE a.changelog_offset < excluded.changelog_offset"""
_TAKE_BACK = """
    DELETE FROM set_aside WHERE projection = %s AND version = %s AND partition = %s AND key_sha256 = ANY(%s)"""


class One(NamedTuple):
    """A row on its way to its table."""

    projection: Projection[Any]
    partition: int
    row: Change


class Aside(NamedTuple):
    """A row that stays outside, and why."""

    one: One
    state: str
    """SQLSTATE."""
    reason: str


Put = Callable[[Sequence[One]], Awaitable[None]]


def of(changes: Sequence[Changes]) -> Iterator[One]:
    return (One(change.projection, change.partition, row) for change in changes for row in change.rows)


async def sift(cursor: AsyncCursor[Any], ones: Sequence[One], put: Put) -> list[Aside]:
    """Puts in what goes in. An error that stays when there is no row left is not about rows, and is raised."""
    try:
        async with cursor.connection.transaction():
            await put(ones)
        return []
    except psycopg.Error as error:
        if not about_content(error) or not ones:
            raise
        if len(ones) == 1:
            # Its first line alone: the others quote the row.
            said = error.diag.message_primary or str(error).strip().partition("\n")[0]
            return [Aside(ones[0], error.sqlstate or "", bounded(said))]
    middle = len(ones) // 2
    return [*await sift(cursor, ones[:middle], put), *await sift(cursor, ones[middle:], put)]


async def keep(cursor: AsyncCursor[Any], aside: Aside) -> None:
    """By name, and without the row that stood there before: what is out of date is not shown as if it were not."""
    (projection, partition, row), state, reason = aside
    company = row.text.partition("/")[0]
    where = (projection.name, projection.version, partition, digest(row.key))
    size = len(row.value.row) if row.value is not None else 0
    what = (shown(row.text)[:SHOWN], shown(company)[:SHOWN], size, row.offset, state, shown(reason))
    await cursor.execute(_KEEP, (*where, *what))
    delete = sql.SQL("DELETE FROM {table} WHERE key = %s AND partition = %s AND changelog_offset < %s")
    table = sql.Identifier(table_of(projection))
    await cursor.execute(delete.format(table=table), (shown(row.text), partition, row.offset))
    log.warning(
        "Postgres does not hold a row of %s v%d, partition %d (changelog offset %d, key %r): %s. It is set aside, "
        "the others go on; `SELECT * FROM set_aside` lists such rows, and a later form that fits takes its place.",
        *(projection.name, projection.version, partition, row.offset, row.text[:SHOWN], f"{state} {reason}".strip()),
    )


async def take_back(cursor: AsyncCursor[Any], ones: Sequence[One]) -> None:
    """These rows fit by now, or are gone."""
    by_place: dict[tuple[str, int, int], list[str]] = {}
    for projection, partition, row in ones:
        by_place.setdefault((projection.name, projection.version, partition), []).append(digest(row.key))
    for place, digests in by_place.items():
        await cursor.execute(_TAKE_BACK, (*place, digests))


def digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
