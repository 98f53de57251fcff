"""What reads the read model: turns for companies, feeds that are cut and go on, the index behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from projections.companies import COMPANIES
from projections.costs import COSTS
from rillfold.embedded.state import Endpoints
from streams.errors import DatabaseCannot
from streams.read_model import reads as module
from streams.read_model.connection import Asking
from streams.read_model.postgres import PostgresSink
from streams.read_model.questions import CONNECTIONS, OF_ONE, DatabaseTurns
from streams.read_model.reads import Reads
from streams.read_model.schema import changed_index, table_of

TABLE = table_of(COMPANIES)


class Model:
    """A read model that a test writes itself, and what reads it."""

    def __init__(self, sink: PostgresSink, reads: Reads, database: psycopg.AsyncConnection[Any], schema: str) -> None:
        self.sink, self.reads, self.schema, self.database = sink, reads, schema, database

    async def ask(self, query: str, given: Any = None) -> list[tuple[Any, ...]]:
        cursor = await self.database.execute(query.encode(), given)
        return await cursor.fetchall() if cursor.description else []

    async def put(
        self, key: str, place: tuple[str, int, int], row: Any, part: int = 0, projection: Any = COMPANIES
    ) -> None:
        given = (key, part, key.partition("/")[0], Jsonb(row), *place)
        await self.ask(
            f"INSERT INTO {table_of(projection)} VALUES (%s, %s, %s, %s, %s, %s, %s, 0) ON CONFLICT (key, partition) "
            "DO UPDATE SET row = excluded.row, topic = excluded.topic, source_partition = excluded.source_partition, "
            "source_offset = excluded.source_offset",
            given,
        )

    async def known(self, positions: dict[str, dict[int, int]], projection: Any = COMPANIES) -> None:
        await self.ask("DELETE FROM positions WHERE projection = %s", (projection.name,))
        for topic, of in positions.items():
            for partition, following in of.items():
                await self.ask(
                    "INSERT INTO positions VALUES (%s, %s, %s, %s, %s)",
                    (projection.name, projection.version, topic, partition, following),
                )

    async def explained(self, query: Any, given: dict[str, Any]) -> str:
        """The plan's scans, and what they look for."""
        table = psycopg.sql.Identifier(self.schema, TABLE)
        cursor = await self.database.execute(psycopg.sql.SQL("EXPLAIN ") + query.format(table=table), given)
        lines = [line for (line,) in await cursor.fetchall()]
        return "\n".join(
            line for line in lines if ("Scan" in line and TABLE in line) or "Cond:" in line or "Filter:" in line
        )


@pytest.fixture
async def model(stack: Endpoints) -> AsyncIterator[Model]:
    schema, dsn = f"t{uuid4().hex[:12]}", stack.postgres_dsn
    assert dsn is not None
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database,
        PostgresSink(dsn, (COMPANIES, COSTS), schema) as sink,
        Reads(dsn, schema) as reads,
    ):
        await database.execute(f'SET search_path TO "{schema}"')
        yield Model(sink, reads, database, schema)
        await database.execute(f'DROP SCHEMA "{schema}" CASCADE')


async def held(model: Model, connections: int) -> None:
    """Returns once so many questions wait for the lock on the table."""
    query = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
    async with asyncio.timeout(60):
        while True:
            if await model.ask(query, (TABLE,)) == [(connections,)]:
                return
            await asyncio.sleep(0.01)


async def test_companies_take_turns_at_the_connections(stack: Endpoints) -> None:
    """Two companies ask as much as they like. A third one's question is next, before the others' backlog."""
    questions, begun = DatabaseTurns(stack.postgres_dsn, "public", 0), list[str]()
    one_more, door = asyncio.Semaphore(0), asyncio.Event()

    async def ask(company: str) -> None:
        async def question(connection: Asking) -> None:
            begun.append(company)  # in the order of the turns, which that of the answers need not be
            one_more.release()
            await door.wait()
            await connection.execute("SELECT 1")

        await questions.ask(company, question)

    asked = [asyncio.create_task(ask("acme")) for _ in range(60)]
    await asyncio.gather(*(one_more.acquire() for _ in range(OF_ONE)))
    asked += [asyncio.create_task(ask("initech")) for _ in range(60)]
    await asyncio.gather(*(one_more.acquire() for _ in range(CONNECTIONS - OF_ONE)))
    asked.append(asyncio.create_task(ask("globex")))
    await asyncio.sleep(0)
    assert begun == ["acme"] * OF_ONE + ["initech"] * (CONNECTIONS - OF_ONE)
    door.set()
    await asyncio.gather(*asked)
    await questions.close()
    assert begun.index("globex") == CONNECTIONS


async def test_whoever_leaves_the_line_takes_no_turn_with_it(model: Model) -> None:
    async with model.database.transaction():
        await model.ask(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        asked = [asyncio.create_task(model.reads.row(COMPANIES, "acme")) for _ in range(20)]
        await held(model, OF_ONE)
        for each in asked:
            each.cancel()
        left = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in left} == {asyncio.CancelledError}
    found = await asyncio.gather(*(model.reads.row(COMPANIES, "acme") for _ in range(20)))
    assert found == [None] * 20
    questions = model.reads._questions
    assert (questions._companies._doors, questions._all._doors) == ({}, {})


async def test_a_question_that_takes_too_long_is_given_up(stack: Endpoints, model: Model) -> None:
    """Even where others' questions hold every connection, whoever comes next has an answer."""
    async with Reads(stack.postgres_dsn, model.schema, 0.5) as reads, model.database.transaction():
        await model.ask(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        asked = [reads.page(COMPANIES, company, None, 10) for company in ("acme", "initech") for _ in range(8)]
        ended = asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await reads.positions(COSTS, "globex") == {}
        assert {type(each) for each in await ended} == {DatabaseCannot}


async def test_a_feed_looks_at_its_companys_changes_alone(model: Model) -> None:
    await model.ask(
        f"INSERT INTO {TABLE} SELECT 'c' || n % 20 || '/' || n, 0, 'c' || n % 20, '{{}}', 'company-data', n % 4, n, 0 "
        "FROM generate_series(1, 40000) AS n"
    )
    await model.ask(f"ANALYZE {TABLE}")
    span = {"topics": ["company-data"], "partitions": [3], "starts": [100], "stops": [39_000], "limit": 200}
    for companies in (["c3"], [f"c{n}" for n in range(20)]):
        scans = await model.explained(module._STEPS, span | {"companies": companies})
        assert changed_index(COMPANIES) in scans and "Seq Scan" not in scans, scans
        assert "Filter:" not in scans and "(source_offset < " in scans, "whatever it reads it tells\n" + scans
    scans = await model.explained(module._COMPANIES, {})
    assert changed_index(COMPANIES) in scans and "Seq Scan" not in scans, scans
    scans = await model.explained(module._CHANGED, {"keys": [f"c3/{n}" for n in range(200)], "bytes": 1 << 22})
    assert "pkey" in scans and "Seq Scan" not in scans, scans


async def test_an_older_database_gets_the_index(model: Model) -> None:
    """In place of the one on companies, which it serves as well."""
    indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s ORDER BY 1"
    await model.put("acme", ("company-data", 0, 1), {})
    await model.ask(f"DROP INDEX {changed_index(COMPANIES)}")
    await model.ask(f"CREATE INDEX {TABLE}_company ON {TABLE} (company)")
    await model.sink.migrate()
    assert await model.ask(indexes, (model.schema, TABLE)) == [(changed_index(COMPANIES),), (f"{TABLE}_pkey",)]


async def told(model: Model, company: str | None, since: Any) -> tuple[list[list[str]], Any]:
    """What a feed tells, page by page, until there is no more."""
    pages, more = list[list[str]](), True
    while more:
        changed = await model.reads.changed(COMPANIES, company, since)
        assert sum(len(json.dumps(row.value)) for row in changed.rows[:-1]) < module.PAGE_BYTES
        pages.append([row.key for row in changed.rows])
        since, more = changed.next, changed.more
        assert len(pages) < 200, "it does not get on"
    return pages, since


async def test_a_feed_is_cut_where_its_rows_are_large_and_goes_on_there(model: Model) -> None:
    """30 MB in one partition; what another has to tell does not wait for the end of them."""
    for n in range(60):
        await model.put(f"acme/{n:02}", ("company-data", 0, n), {"text": "x" * 500_000})
    await model.put("acme/other", ("company-data", 1, 3), {"text": "x"})
    await model.put("globex/1", ("company-data", 1, 4), {"text": "x"})
    positions = {"company-data": {0: 60, 1: 5}}
    await model.known(positions)
    pages, since = await told(model, "acme", {})
    assert [key for page in pages for key in page if key != "acme/other"] == [f"acme/{n:02}" for n in range(60)]
    assert "acme/other" in pages[0] and sum(page.count("acme/other") for page in pages) == 1
    assert max(map(len, pages)) <= module.PAGE_BYTES // 500_000 + 2
    assert since == positions
    await model.put("acme/07", ("company-data", 1, 9), {"text": "y"})
    await model.known({"company-data": {0: 60, 1: 9}})
    waiting, since = await told(model, "acme", since)
    assert waiting == [[]], "its event is not known to be folded"
    await model.known({"company-data": {0: 60, 1: 10}})
    assert await told(model, "acme", since) == ([["acme/07"]], {"company-data": {0: 60, 1: 10}})


@pytest.mark.parametrize("seed", range(12))
async def test_a_cut_loses_nothing_and_repeats_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Wherever the rows stand, however large they are, and whatever is changed before the cut."""
    chance = Random(seed)
    monkeypatch.setattr(module, "PAGE_BYTES", 3_000)
    monkeypatch.setattr(module, "CHANGES", chance.choice((1, 2, 5)))
    ends = {topic: dict.fromkeys(range(3), 0) for topic in ("a", "b")}
    since, seen = dict[str, Any](), list[str]()
    should: list[str] = []
    for change in range(4):
        for n in range(chance.randrange(14)):
            topic, partition = chance.choice("ab"), chance.randrange(3)
            ends[topic][partition] += chance.choice((1, 1, 1, 40))
            key = f"{chance.choice(('acme', 'acme', 'globex'))}/{change}/{n}"
            text = "x" * chance.choice((1, 100, 1_500, 5_000))
            await model.put(key, (topic, partition, ends[topic][partition] - 1), {"text": text})
            should.append(key)
        await model.known(ends)
        company = None if seed % 2 else "acme"
        pages, since = await told(model, company, since)
        seen += [key for page in pages for key in page]
    assert since == ends
    assert sorted(seen) == sorted(key for key in should if seed % 2 or key.startswith("acme/"))


async def test_a_row_that_is_spread_over_partitions_is_told_whole(model: Model) -> None:
    for part, requests in enumerate((2, 3)):
        row = {"company": "acme", "adapter": "base", "model": "m", "requests": requests}
        await model.put("acme/base/m", ("inference-result", part, 5), row, part, COSTS)
    await model.known({"inference-result": {0: 6, 1: 6}}, COSTS)
    changed = await model.reads.changed(COSTS, "acme", {"inference-result": {0: 6, 1: 5}})
    assert [row.value["requests"] for row in changed.rows] == [5]
    assert changed.next == {"inference-result": {0: 6, 1: 6}} and not changed.more
