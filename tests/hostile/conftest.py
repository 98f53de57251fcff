"""One stage for all groups, until one of them breaks it: the next gets a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from rillfold.embedded.state import Endpoints
from streams.log.kafka.log import KafkaLog
from tests.hostile.checks import Watch, furnished, prepared
from tests.hostile.stage import Stage, open_stage


class House:
    """Opens the stage when it is first needed, and again after a group broke it."""

    def __init__(self, servers: Endpoints) -> None:
        self._servers, self._open = servers, ExitStack()
        self._stage: Stage | None = None
        self._watch = Watch()

    async def at_hand(self) -> tuple[Stage, Watch]:
        if self._stage is not None and not self._stage.broken:
            return self._stage, self._watch
        await asyncio.to_thread(self._open.close)
        self._stage = await asyncio.to_thread(self._open.enter_context, open_stage(self._servers))
        self._stage.broken = "not furnished yet"
        async with KafkaLog(self._servers.bootstrap_servers) as log:
            await prepared(log, self._stage)
            await asyncio.to_thread(self._stage.cast.start)
            self._watch = await furnished(self._stage, log)
        self._stage.broken = ""
        return self._stage, self._watch

    def close(self) -> None:
        self._open.close()


@pytest.fixture(scope="session")
def house(stack: Endpoints) -> Iterator[House]:
    opened = House(stack)
    yield opened
    opened.close()


@pytest.fixture
async def log(stack: Endpoints) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers) as kafka:
        yield kafka
