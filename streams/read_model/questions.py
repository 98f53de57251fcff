"""Questions to Postgres: how many at once, each company in its turn, and none for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus

from streams.errors import DatabaseAway, NoReadModel
from streams.fairness.turns import Turns
from streams.read_model.connection import Asking, reached
from streams.read_model.database import named

CONNECTIONS = 8
OF_ONE = max(1, CONNECTIONS // 2)
"""Connections that work for one company at once; whoever asks about no company in particular counts as one."""
GRACE_SECONDS = 2.0
"""So much longer than the server gives a question it is waited for here: then it is the server that hangs."""

Found = TypeVar("Found")
Question = Callable[[Asking], Awaitable[Found]]


class DatabaseTurns:
    """Opens connections when they are first needed, and keeps some."""

    def __init__(self, dsn: str | None, schema: str, seconds: float) -> None:
        """0 seconds: nobody else waits for a turn, and a question may take what it takes."""
        self._dsn, self._schema, self._seconds = dsn, schema, seconds
        self._limit = seconds + GRACE_SECONDS if seconds else inf
        self._free, self._free_for_ping = list[Asking](), list[Asking]()
        self._companies, self._all = Turns(OF_ONE), Turns(CONNECTIONS)
        self._under_way = set[asyncio.Task[Any]]()

    async def close(self) -> None:
        for each in self._under_way:
            each.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for connection in (*self._free, *self._free_for_ping):
            await connection.close()
        self._free, self._free_for_ping = [], []

    async def ask(self, company: str | None, question: Question[Found]) -> Found:
        """Of those who wait, the longest waiting goes first.

        One that is under way ends, whoever has left meanwhile: its connection is good for the next, and its turn over
        only then.
        """
        async with AsyncExitStack() as turns:
            await self._in_turn(turns, self._companies, company)
            await self._in_turn(turns, self._all, None)
            asked = asyncio.create_task(self._asked(turns.pop_all(), company, question))
        self._under_way.add(asked)
        asked.add_done_callback(self._under_way.discard)
        return await asyncio.shield(asked)

    async def ping(self) -> None:
        """In nobody's line: it is not long queries that are asked after. Ends at once when it is given up."""
        async with self._connected(self._free_for_ping) as connection:
            await connection.execute("SELECT 1")

    async def _in_turn(self, turns: AsyncExitStack, line: Turns, key: Hashable) -> None:
        if not await line.enter(key, self._limit):
            raise DatabaseAway(f"in {self._limit:.0f} s none of the questions before this one was answered")
        turns.callback(line.leave, key)

    async def _asked(self, turns: AsyncExitStack, company: str | None, question: Question[Found]) -> Found:
        async with turns:
            try:
                async with (
                    asyncio.timeout(None if self._limit == inf else self._limit),
                    self._connected(self._free) as connection,
                ):
                    found = await question(connection)
            except TimeoutError as error:
                raise DatabaseAway(f"it said nothing in {self._limit:.0f} s") from error
            self._companies.proven(company)
            self._all.proven(None)
            return found

    @asynccontextmanager
    async def _connected(self, free: list[Asking]) -> AsyncIterator[Asking]:
        """Never for longer than one question."""
        connection = free.pop() if free else await self._open()
        try:
            yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise NoReadModel(self._schema) from error
        except psycopg.OperationalError as error:
            raise named(error) from error
        finally:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                free.append(connection)
            else:
                await connection.close()

    async def _open(self) -> Asking:
        if self._dsn is None:
            raise DatabaseAway("no DSN is set")
        try:
            opened = await Asking.connect(**reached(self._dsn), autocommit=True)
            opened.adapters.register_loader("jsonb", _AsItStands)
            await opened.execute(sql.SQL("SET statement_timeout = {}").format(int(self._seconds * 1000)))
        except psycopg.OperationalError as error:
            raise named(error) from error
        return opened


class _AsItStands(Loader):
    """A row's JSON is passed on, and read by whoever needs a word of it."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)
