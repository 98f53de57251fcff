"""Events with a seed, real workers as child processes, and a schema of each test's own in a real database."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from rillfold.embedded.state import Endpoints
from tests.support.folding import agree, kafka, produce, some_events, started, topics, workers

__all__ = ["agree", "kafka", "produce", "some_events", "started", "topics", "workers"]


@pytest.fixture
def schema() -> str:
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
async def query(stack: Endpoints, schema: str) -> AsyncIterator[Any]:
    """Rows of the schema as they stand, by whatever SQL a test likes."""
    assert stack.postgres_dsn is not None
    async with await psycopg.AsyncConnection.connect(stack.postgres_dsn, autocommit=True) as connection:
        await connection.execute(f'SET search_path TO "{schema}"')

        async def query(sql: str) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(sql)
            return await cursor.fetchall() if cursor.description else []

        yield query
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
