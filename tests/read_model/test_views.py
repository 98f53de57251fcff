"""What others have hung on a view of ours, a right or a view of their own, stays when the sink starts again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import psycopg
import pytest

from projections.companies import COMPANIES, Company
from projections.projection import Projection
from rillfold.embedded.state import Endpoints
from streams.errors import ViewInUse
from streams.read_model.postgres import PostgresSink


class Longer(Company, frozen=True, kw_only=True):
    """A field more, which does not come last."""

    motto: str = ""


class Renamed(msgspec.Struct, frozen=True):
    company: str = ""
    title: str = ""


class Retyped(msgspec.Struct, frozen=True):
    company: str = ""
    registered_at: str = ""


def next_version(state: type[msgspec.Struct]) -> Projection[Any]:
    anything: Any = COMPANIES
    return replace(anything, state=state, version=COMPANIES.version + 1)


RETYPED = next_version(Retyped)
LONGER = replace(COMPANIES, state=Longer)
RENAMED = next_version(Renamed)


@pytest.fixture
async def sinks(stack: Endpoints, schema: str) -> Any:
    assert stack.postgres_dsn is not None
    dsn = stack.postgres_dsn

    async def started(projection: Projection[Any]) -> None:
        async with PostgresSink(dsn, [projection], schema):
            pass

    await started(COMPANIES)
    return started


@pytest.fixture
async def reader(stack: Endpoints, schema: str, sinks: Any) -> Any:
    """Somebody who may read the view, and has made another over it."""
    assert stack.postgres_dsn is not None
    role = f"reader_{schema}"
    async with await psycopg.AsyncConnection.connect(stack.postgres_dsn, autocommit=True) as connection:
        await connection.execute(f'CREATE ROLE "{role}"')
        await connection.execute(f'GRANT SELECT ON "{schema}".companies TO "{role}" WITH GRANT OPTION')

        async def may() -> bool:
            asked = await connection.execute(
                "SELECT has_table_privilege(%s, %s, 'SELECT WITH GRANT OPTION')", (role, f'"{schema}".companies')
            )
            row = await asked.fetchone()
            return bool(row and row[0])

        yield may
        await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'companies'::regclass AND attnum > 0 ORDER BY attnum"
MINE = "CREATE VIEW mine AS SELECT {} FROM companies"


async def columns(query: Any) -> list[str]:
    return [name for (name,) in await query(COLUMNS)]


async def test_a_restart_a_new_field_and_a_release_that_goes_back_take_no_right_and_no_view(
    sinks: Any, reader: Any, query: Any
) -> None:
    before = await columns(query)
    await query(MINE.format("name"))
    for projection in (COMPANIES, LONGER, COMPANIES):
        await sinks(projection)
        assert await reader()
        assert await query("SELECT * FROM mine") == []
    assert await columns(query) == [*before, "motto"]


async def test_a_view_that_is_made_anew_gives_the_rights_again(sinks: Any, reader: Any, query: Any) -> None:
    await sinks(RENAMED)
    assert await reader()
    assert (await columns(query))[:2] == ["company", "title"]


async def test_what_is_gone_is_null_where_somebody_looks_at_it(sinks: Any, reader: Any, query: Any) -> None:
    before = await columns(query)
    await query(MINE.format("name"))
    await sinks(RENAMED)
    assert await columns(query) == [*before, "title"]
    assert await reader()


async def test_a_view_that_stands_on_a_column_of_another_type_is_named(sinks: Any, reader: Any, query: Any) -> None:
    before = await columns(query)
    await query(MINE.format("registered_at"))
    with pytest.raises(ViewInUse, match="companies"):
        await sinks(RETYPED)
    assert await columns(query) == before
    assert await reader()
