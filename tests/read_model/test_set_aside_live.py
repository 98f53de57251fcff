"""A sink worker, as a supervisor runs it, before rows that its database cannot hold."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import psycopg

from projections.memories import MEMORIES, Memory
from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing
from streams.state.changelog import Marker, RowCodec, marker_record, refusal_record, topic_of
from streams.state.refusal import Refusal
from tests.support.worker import WorkerProcess, external

ROWS = RowCodec(Memory)


def row(company: str, memory: str) -> tuple[bytes, bytes]:
    state = Memory(company=company, memory=memory, active=True, text="t")
    return f"{company}/{memory}".encode(), ROWS.encode(state, "company-data", 0, 1)


async def test_a_name_of_3000_characters_goes_aside_and_the_sink_stays_ready(
    stack: Endpoints, kafka: KafkaLog, names: TopicNames, topics: None, tmp_path: Path
):
    assert stack.postgres_dsn is not None
    schema = f"t{uuid4().hex[:12]}"
    database = {"POSTGRES_DSN": stack.postgres_dsn, "POSTGRES_SCHEMA": schema}
    settings = external(stack.bootstrap_servers, names.prefix, tmp_path, **database)
    sink = WorkerProcess("sink", ("worker", "sink"), settings, tmp_path).start()
    told = tmp_path / "run" / "sink-1.json"
    try:
        async with asyncio.timeout(120):
            while not told.exists():  # noqa: ASYNC110 - a process of its own
                await asyncio.sleep(0.2)
            changelog = topic_of(MEMORIES, names.prefix)
            long = "".join(f"{n * 7919 % 1000:03d}" for n in range(1_000))
            refused = Refusal(
                topic="company-data",
                partition=0,
                offset=5,
                projection="memories",
                version=1,
                company="evil",
                event="e",
                reason="row_too_large",
                detail="1200000 bytes of rows",
            )
            pairs = [row("acme", "before"), row("evil", long), refusal_record(refused), row("acme", "after")]
            pairs.append(marker_record(Marker("company-data", 0, 6)))
            await kafka.append([Outgoing(changelog, key, value, partition=0) for key, value in pairs])
            await _holds(stack.postgres_dsn, schema, [("acme", "after"), ("acme", "before")])
            async with await psycopg.AsyncConnection.connect(stack.postgres_dsn) as connection:
                found = await _asked(connection, f'SELECT company, state, left(key, 9) FROM "{schema}".set_aside')
                assert found == [("evil", "54000", "evil/0009")]
                found = await _asked(connection, f'SELECT company, "offset", reason FROM "{schema}".refused')
                assert found == [("evil", 5, "row_too_large")]
            address = msgspec.json.decode(told.read_bytes())["url"]
            async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
                while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                assert "rillfold_rows_set_aside_total 1.0" in (await client.get("/metrics")).text
            # And it goes on.
            await kafka.append([Outgoing(changelog, *row("acme", "later"), partition=0)])
            await _holds(stack.postgres_dsn, schema, [("acme", "after"), ("acme", "before"), ("acme", "later")])
        assert sink.alive
        assert "does not answer" not in sink.log()
    finally:
        sink.close()
        sys.stdout.write(sink.log())
        async with await psycopg.AsyncConnection.connect(stack.postgres_dsn, autocommit=True) as connection:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


async def _holds(dsn: str, schema: str, rows: list[tuple[str, str]]) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while await _asked(connection, f'SELECT company, memory FROM "{schema}".memories ORDER BY memory') != rows:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _asked(connection: psycopg.AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode())).fetchall()
