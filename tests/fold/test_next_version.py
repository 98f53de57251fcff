"""A projection's next version is folded beside the one before, whose rows lie in changelog, store and Postgres."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from projections.projection import Projection
from rillfold.embedded.state import Endpoints
from schemas.company import CompanyRegistered
from schemas.topics import BY_NAME, TopicNames
from streams.errors import UnknownTopic
from streams.history.refold import Held, held, refold
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from streams.read_model.postgres import PostgresSink
from streams.read_model.reads import Reads
from streams.read_model.sink import Follower
from streams.state.changelog import RESERVED, RowCodec, topic_of
from streams.state.store import RocksStore
from tests.support.two_versions import UNLOVED, VERSIONS

ROOT = Path(__file__).parents[2]
ONE, TWO = VERSIONS[1], VERSIONS[2]


@pytest.fixture
async def kafka(stack: Endpoints, names: TopicNames) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers, session_timeout=6.0) as log:
        await log.create(wanted(names, [BY_NAME["company-data"]]))
        yield log


@pytest.fixture
def schema(stack: Endpoints) -> Iterator[str]:
    assert stack.postgres_dsn is not None
    name = f"t{uuid4().hex[:12]}"
    yield name
    with psycopg.connect(stack.postgres_dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA "{name}" CASCADE')


@contextmanager
def worker(version: int, stack: Endpoints, names: TopicNames, folder: Path) -> Iterator[None]:
    """Of that release, on the same disk and in the same group. It ends as in an upgrade: it is told to."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RILLFOLD_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "RILLFOLD_TOPIC_PREFIX": names.prefix,
        "RILLFOLD_DATA_DIR": str(folder),
        "RILLFOLD_SESSION_TIMEOUT": "3",
    }
    with (folder / f"worker-{version}.log").open("ab") as log:
        line = [sys.executable, "-m", "tests.support.two_versions", str(version)]
        child = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
    try:
        yield
        child.terminate()
        assert child.wait(60) == 0, (folder / f"worker-{version}.log").read_text()
    finally:
        child.kill()
        child.wait()


async def folded(kafka: KafkaLog, projection: Projection[Any], names: TopicNames) -> Mapping[int, Held]:
    """Its changelog, once all that stands in the log is folded: every row is that of a fresh fold."""
    changelog, source = topic_of(projection, names.prefix), names.wire("company-data")
    async with asyncio.timeout(90):
        while True:
            with suppress(UnknownTopic):
                found, ends = await held(kafka, projection, changelog), await kafka.ends(source)
                if all(found[p].markers.get(source, 0) >= end for p, end in ends.items()):
                    break
            await asyncio.sleep(0.2)
    for partition, part in found.items():
        assert part.rows == (await refold(kafka, projection, names, partition, part)).rows
        assert not part.unreadable, changelog
    return found


def stored(projection: Projection[Any], names: TopicNames, folder: Path) -> dict[int, dict[str, Any]]:
    """What lies on the disk of a worker that has ended."""
    changelog, codec, found = topic_of(projection, names.prefix), RowCodec(projection.state), {}
    for place in sorted((folder / "workers" / "a" / "tables" / changelog).iterdir()):
        store = RocksStore(place)
        rows = {k.decode(): codec.decode(v).row for k, v in store.scan() if not k.startswith(RESERVED)}
        found[int(place.name)] = rows
        store.close()
    return found


@asynccontextmanager
async def sink(dsn: str, schema: str, version: int, kafka: KafkaLog, names: TopicNames) -> AsyncIterator[Reads]:
    projections = [VERSIONS[version]]
    async with PostgresSink(dsn, projections, schema) as kept, Reads(dsn, schema) as reads:
        following = asyncio.create_task(Follower(kept, projections, names.prefix).run(kafka, f"{names.prefix}sink"))
        try:
            yield reads
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


async def shown(reads: Reads, projection: Projection[Any], parts: Mapping[int, Held]) -> None:
    """Postgres says what the changelog says."""
    should = {
        key: msgspec.json.decode(msgspec.json.encode(row)) for part in parts.values() for key, row in part.rows.items()
    }
    async with asyncio.timeout(60):
        while {r.key: r.value for r in await reads.rows(projection, None, None, 200)} != should:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_the_next_version_is_folded_beside_the_one_before(
    kafka: KafkaLog, stack: Endpoints, names: TopicNames, schema: str, tmp_path: Path
) -> None:
    dsn = stack.postgres_dsn
    assert dsn is not None

    async def register(start: int, *more: str) -> None:
        said = [f"Name {n}" for n in range(start, start + 120)] + list(more)
        own = [{"id": f"{start}-{n}", "correlation": "c", "time": n, "company": f"c{n % 40}"} for n in range(len(said))]
        events = [CompanyRegistered(**each, name=name) for each, name in zip(own, said, strict=True)]
        await kafka.append([to_outgoing(event, names) for event in events])

    await register(0, UNLOVED)
    with worker(1, stack, names, tmp_path):
        first = await folded(kafka, ONE, names)
        async with sink(dsn, schema, 1, kafka, names) as reads:
            await shown(reads, ONE, first)
    assert sum(len(part.refused) for part in first.values()) == 1
    before = await kafka.ends(topic_of(ONE, names.prefix))

    await register(1_000)
    with worker(2, stack, names, tmp_path):
        second = await folded(kafka, TWO, names)
        async with sink(dsn, schema, 2, kafka, names) as reads:
            await shown(reads, TWO, second)
            # The rows of version 1 are whole, and of nobody's concern.
            await shown(reads, ONE, first)
    rows = {key: row for part in second.values() for key, row in part.rows.items()}
    assert rows["c0"].names == tuple(sorted({f"Name {s + n}" for s in (0, 1_000) for n in (0, 40, 80)} | {UNLOVED}))
    assert not any(part.refused for part in second.values())
    assert await kafka.ends(topic_of(ONE, names.prefix)) == before
    assert stored(ONE, names, tmp_path) == {n: part.rows for n, part in first.items()}
    assert stored(TWO, names, tmp_path) == {n: part.rows for n, part in second.items()}
    with psycopg.connect(dsn) as connection:
        view = connection.execute(f'SELECT company, names FROM "{schema}".companies ORDER BY company').fetchall()
        told = connection.execute(f'SELECT DISTINCT version FROM "{schema}".refused').fetchall()
    assert dict(view) == {key: list(row.names) for key, row in rows.items()}
    assert told == [(1,)]

    # And back: the release before goes on where it stopped.
    with worker(1, stack, names, tmp_path):
        again = await folded(kafka, ONE, names)
    assert sum(len(part.refused) for part in again.values()) == 1
    assert {row.name for part in again.values() for row in part.rows.values()} <= {
        f"Name {1_000 + n}" for n in range(120)
    }
