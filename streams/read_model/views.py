"""The views of the read model: a newer one takes the older one's place, with whatever others have hung on it."""

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncCursor, errors

from projections.projection import Projection
from streams.errors import ViewInUse
from streams.read_model.schema import columns_shown, source_of

_STANDING = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_GRANTED = """
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, privilege_type,
        CASE WHEN is_grantable THEN 'WITH GRANT OPTION' ELSE '' END
    FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass(%s) AND grantee <> relowner"""


async def show(cursor: AsyncCursor[Any], schema: str, projection: Projection[Any]) -> None:
    """Rights on the view, and views over it, stay: a new column comes last, and the view is replaced.

    Where a column is gone or has become another it is made anew, and rights are given again. A view of somebody else's
    over it forbids that: then what is gone is null, and what has become another is refused by name.
    """
    view, columns = f'"{schema}"."{projection.name}"', columns_shown(projection)
    await cursor.execute(_STANDING, (view,))
    standing: dict[str, str] = dict(await cursor.fetchall())
    as_it_stands = {**{name: f"NULL::{kind}" for name, kind in standing.items()}, **columns}
    replaced = f"CREATE OR REPLACE VIEW {view} AS SELECT {_listed(as_it_stands)} {source_of(schema, projection)}"
    if set(standing) <= set(columns) and await _done(cursor, replaced):
        return
    await cursor.execute(_GRANTED, (view,))
    rights = [f"GRANT {right} ON {view} TO {who} {further}" for who, right, further in await cursor.fetchall()]
    anew = f"CREATE VIEW {view} AS SELECT {_listed(columns)} {source_of(schema, projection)}"
    if not await _done(cursor, f"DROP VIEW {view}", anew, *rights) and not await _done(cursor, replaced):
        raise ViewInUse(view)


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())


async def _done(cursor: AsyncCursor[Any], *statements: str) -> bool:
    """All of them, or none where the view that stands, or one over it, is in the way."""
    try:
        async with cursor.connection.transaction():
            for statement in statements:
                await cursor.execute(statement.encode())
    except (errors.InvalidTableDefinition, errors.DependentObjectsStillExist):
        return False
    return True
