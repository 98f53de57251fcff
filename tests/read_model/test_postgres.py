"""The read model in Postgres: equal to the changelog, whatever is killed; a late writer changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from projections.catalog import PROJECTIONS
from projections.companies import COMPANIES, Company
from projections.company_tools import COMPANY_TOOLS
from projections.datasets import DATASETS
from projections.projection import Projection
from rillfold.embedded.state import Endpoints
from rillfold.settings import Settings
from rillfold.testing.driver import Driver
from schemas.errors import Retry, Stop
from schemas.topics import TopicNames
from streams.errors import Fenced
from streams.history.refold import held
from streams.log.kafka.log import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.port import Outgoing, Record, TopicSpec
from streams.read_model.postgres import PostgresSink
from streams.read_model.reads import Reads
from streams.read_model.schema import columns_of, table_of
from streams.read_model.sink import Changes, Follower, Newest, changes_of
from streams.state.changelog import Marker, RowCodec, marker_record, topic_of
from tests.upgrade.record import HISTORIES, lines

FOLDED = (COMPANIES, COMPANY_TOOLS, DATASETS)
CHANGELOG = "changelog-of-companies"
ROWS = RowCodec(Company)


@pytest.fixture
async def sink(stack: Endpoints, schema: str) -> AsyncIterator[PostgresSink]:
    assert stack.postgres_dsn is not None
    async with PostgresSink(stack.postgres_dsn, FOLDED, schema) as sink:
        yield sink


async def test_two_deployments_share_a_database_and_mix_nothing(stack: Endpoints):
    """One log, one database, two topic prefixes: everything else is as it comes."""
    assert stack.postgres_dsn is not None
    log, schemas = MemoryLog(), []
    async with AsyncExitStack() as open_:
        for prefix in ("north-", "south-"):
            settings = Settings(topic_prefix=f"{prefix}{uuid4().hex[:8]}-")
            names, schema = settings.topic_names(), settings.read_model()
            schemas.append(schema)
            driver = await open_.enter_async_context(Driver(log, [COMPANIES], names=names))
            await driver.send({"type": "company.registered", "company": "acme", "name": prefix})
            await driver.settle()
            kept = await open_.enter_async_context(PostgresSink(stack.postgres_dsn, [COMPANIES], schema))
            follower, topic = Follower(kept, [COMPANIES], names.prefix), topic_of(COMPANIES, names.prefix)
            member = await open_.enter_async_context(log.subscribe(f"{names.prefix}sink", [topic]))
            while follower.rows == 0:
                await follower.step(member, log)
        for prefix, schema in zip(("north-", "south-"), schemas, strict=True):
            reads = await open_.enter_async_context(Reads(stack.postgres_dsn, schema))
            assert [row.value["name"] for row in await reads.rows(COMPANIES, None, None, 9)] == [prefix]
        async with await psycopg.AsyncConnection.connect(stack.postgres_dsn, autocommit=True) as connection:
            for schema in schemas:
                await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')


async def test_a_view_says_what_a_query_says(stack: Endpoints, schema: str):
    """Also where the parts of a row stand in several partitions."""
    assert stack.postgres_dsn is not None
    log, projections = MemoryLog(), list(PROJECTIONS.values())
    history = [line for name in ("jobs", "sessions_memories_rollouts") for line in lines(HISTORIES / f"{name}.jsonl")]
    async with AsyncExitStack() as open_:
        driver = await open_.enter_async_context(Driver(log, projections))
        await log.append([Outgoing(r.topic, r.key, r.value, r.headers, r.partition, r.timestamp) for r in history])
        # More than a session lists, some of them at one moment.
        for n in range(80):
            job = {"company": "acme", "job": f"j{n}", "task": "Count.", "session": "long", "time": 7_000 + n // 7}
            await driver.send({"type": "job.requested", **job})
        await driver.settle()
        kept = await open_.enter_async_context(PostgresSink(stack.postgres_dsn, projections, schema))
        follower = Follower(kept, projections)
        member = await open_.enter_async_context(log.subscribe("sink", [topic_of(p) for p in projections]))
        before = -1
        while follower.rows > before or before <= 0:
            before = follower.rows
            await follower.step(member, log)
        reads = await open_.enter_async_context(Reads(stack.postgres_dsn, schema))
        connection = await psycopg.AsyncConnection.connect(stack.postgres_dsn, autocommit=True)
        await open_.enter_async_context(connection)
        spread = 0
        for projection in projections:
            view = await connection.execute(f'SELECT row_to_json(v) FROM "{schema}"."{projection.name}" v')
            asked = [row.value for row in await reads.rows(projection, None, None, 1_000)]
            columns = {name for name, _ in columns_of(projection.state)}
            assert _shown([row for (row,) in await view.fetchall()], columns) == _shown(asked, columns), projection.name
            table = await connection.execute(f'SELECT count(*) FROM "{schema}"."{table_of(projection)}"')
            spread += (await table.fetchall())[0][0] > len(asked) > 0
        assert spread, "no row stood in several partitions"
        await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')


def _shown(rows: list[dict[str, Any]], columns: set[str]) -> list[bytes]:
    encode = msgspec.json.Encoder(order="sorted").encode
    return sorted(encode({name: row[name] for name in columns}) for row in rows)


def test_a_schema_has_a_name_that_postgres_keeps_whole():
    assert Settings().read_model() == "rillfold"
    assert Settings(topic_prefix="north-").read_model() == "north-rillfold"
    assert Settings(topic_prefix="north-", postgres_schema="shop").read_model() == "shop"
    for wrong in (Settings(topic_prefix="n" * 60), Settings(postgres_schema='a"b')):
        with pytest.raises(Stop, match="RILLFOLD_POSTGRES_SCHEMA"):
            wrong.read_model()


def records(*names: str, start: int = 0) -> list[Record]:
    """Changelog records of one company, and the marker that closes them."""
    rows = [
        (b"acme", ROWS.encode(Company(company="acme", name=name), "company-data", 0, n)) for n, name in enumerate(names)
    ]
    rows.append(marker_record(Marker("company-data", 0, len(names))))
    return [Record(CHANGELOG, 0, start + n, 0, key, value) for n, (key, value) in enumerate(rows)]


def changes(*names: str, start: int = 0) -> list[Changes]:
    return [coalesced(CHANGELOG, *names, start=start)]


def coalesced(changelog: str, *names: str, start: int) -> Changes:
    newest = Newest(start)
    newest.add(records(*names, start=start))
    return changes_of(COMPANIES, (changelog, 0), newest)


async def test_a_row_is_written_once_with_its_newest_value_and_its_place(sink: PostgresSink, query: Any):
    assert await sink.take(CHANGELOG, 0) == 0
    await sink.write(changes("Acme", "Acme Corp"))
    assert await query("SELECT company, name, source_offset FROM companies") == [("acme", "Acme Corp", 1)]
    assert await query("SELECT next FROM positions") == [(2,)]
    assert await sink.take(CHANGELOG, 0) == 3


async def test_the_same_stretch_twice_changes_nothing(sink: PostgresSink, query: Any):
    await sink.take(CHANGELOG, 0)
    await sink.write(changes("Acme"))
    before = await query("SELECT *, xmin FROM companies_v1")
    await sink.write(changes("Acme"))
    assert await query("SELECT *, xmin FROM companies_v1") == before


async def test_an_older_stretch_never_wins(sink: PostgresSink, query: Any):
    await sink.take(CHANGELOG, 0)
    await sink.write(changes("Acme Corp", start=10))
    await sink.write(changes("Acme", start=0))
    assert await query("SELECT name FROM companies") == [("Acme Corp",)]


async def test_a_late_holder_of_a_partition_is_shut_out(stack: Endpoints, schema: str, sink: PostgresSink, query: Any):
    await sink.take(CHANGELOG, 0)
    assert stack.postgres_dsn is not None
    async with PostgresSink(stack.postgres_dsn, FOLDED, schema) as successor:
        await successor.take(CHANGELOG, 0)
        await successor.write(changes("Acme"))
        with pytest.raises(Fenced):
            await sink.write(changes("Stale", start=50))
    assert await query("SELECT name FROM companies") == [("Acme",)]


async def test_a_database_that_takes_no_writes_after_a_failover_is_tried_again(
    stack: Endpoints, schema: str, sink: PostgresSink, query: Any
):
    """Each try asks for a new connection: the name may lead to the new primary by now."""
    dsn = make_conninfo(stack.postgres_dsn or "", options="-c default_transaction_read_only=on")
    late = PostgresSink(dsn, FOLDED, schema)
    for attempt in (late.take(CHANGELOG, 0), late.write(changes("Ada")), late.migrate()):
        with pytest.raises(Retry, match="25006"):
            await attempt
        assert late._connection is None
    await sink.take(CHANGELOG, 0)
    await sink.write(changes("Ada"))
    assert await query("SELECT name FROM companies") == [("Ada",)]


async def test_rows_of_a_changelog_that_was_made_anew_are_read_again(sink: PostgresSink, query: Any):
    changelog, log = topic_of(COMPANIES), MemoryLog()
    await sink.take(changelog, 0)
    await sink.write([coalesced(changelog, "Old", "Older", start=500)])
    await log.create([TopicSpec(changelog, 1)])
    await log.append([Outgoing(changelog, r.key, r.value, partition=0) for r in records("New")])
    follower = Follower(sink, [COMPANIES])
    async with log.subscribe("sink", [changelog]) as subscription:
        while await query("SELECT name FROM companies") != [("New",)]:
            await follower.step(subscription, log)
    assert await query("SELECT next FROM positions") == [(1,)]


async def test_text_that_postgres_cannot_hold_is_shown_not_refused(sink: PostgresSink, query: Any):
    await sink.take(CHANGELOG, 0)
    await sink.write(changes("zero\x00 back\\slash \\u0000 tab\t new\nline"))
    assert await query("SELECT name FROM companies") == [("zero\ufffd back\\slash \\u0000 tab\t new\nline",)]


async def test_followers_killed_in_between_leave_what_the_changelog_says(
    workers: Any,
    some_events: Any,
    produce: Any,
    agree: Any,
    kafka: KafkaLog,
    names: TopicNames,
    sink: PostgresSink,
    schema: str,
    query: Any,
):
    only = [option for projection in FOLDED for option in ("--only", projection.name)]
    await produce(some_events(3000, 21))
    workers("a").start(*only)
    await agree()
    for n in range(3):
        follower = asyncio.create_task(Follower(sink, FOLDED, names.prefix).run(kafka, f"{names.prefix}sink"))
        await produce(some_events(500, 22 + n))
        await asyncio.sleep(n * 0.7)
        follower.cancel()
        await asyncio.wait([follower])
    follower = asyncio.create_task(Follower(sink, FOLDED, names.prefix).run(kafka, f"{names.prefix}sink"))
    await agree()
    await in_postgres(kafka, names, query)
    follower.cancel()
    await asyncio.wait([follower])


async def in_postgres(kafka: KafkaLog, names: TopicNames, query: Any, projections: Sequence[Projection[Any]] = FOLDED):
    """Row by row, in every table, once the sink has caught up."""
    for projection in projections:
        found = await held(kafka, projection, topic_of(projection, names.prefix))
        should = {(key, partition): row for partition, part in found.items() for key, row in part.rows.items()}
        async with asyncio.timeout(60):
            while True:
                rows = await query(f"SELECT key, partition, row FROM {table_of(projection)}")
                there = {(key, partition): msgspec.convert(row, projection.state) for key, partition, row in rows}
                if there == should:
                    break
                await asyncio.sleep(0.2)
