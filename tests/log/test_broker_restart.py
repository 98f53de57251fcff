"""The broker goes away and comes back under a log that is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rillfold.embedded import ports
from rillfold.embedded.stack import running
from rillfold.settings import Settings, from_env
from streams.errors import Unreachable
from streams.log.kafka.client import close_client
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing, TopicSpec


class Broker:
    """One of our own, which this test may stop."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._running = ExitStack()

    def start(self) -> str:
        stack = running(self._folder, postgres=False, settings=self._settings)
        return self._running.enter_context(stack).bootstrap_servers

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    settings = from_env({"RILLFOLD_KAFKA_PORT": str(ports.free_port())})
    with TemporaryDirectory(prefix="rillfold-restart-") as folder:
        own = Broker(Path(folder), settings)
        yield own
        own.stop()


async def test_an_append_waits_for_the_broker_and_lands_once(broker: Broker) -> None:
    servers = await asyncio.to_thread(broker.start)
    async with KafkaLog(servers, session_timeout=6.0) as log:
        await log.create([TopicSpec("t", 1)])
        await log.append([Outgoing("t", None, b"before")])
        async with log.subscribe("g", ["t"]) as member:
            while not await member.poll(1.0):
                pass
            await member.commit({("t", 0): 1})
            await asyncio.to_thread(broker.stop)
            waiting = asyncio.create_task(log.append([Outgoing("t", None, b"during %d" % n) for n in range(40)]))
            await asyncio.to_thread(broker.start)
            await waiting
            await log.append([Outgoing("t", None, b"after")])
            seen: list[bytes | None] = []
            while len(seen) < 41:
                seen += [record.value for batch in (await member.poll(1.0)).values() for record in batch]
            assert seen == [*(b"during %d" % n for n in range(40)), b"after"]
            await member.commit({("t", 0): 42})
        assert await log.ends("t") == {0: 42}
        assert await log.committed("g", "t") == {0: 42}


async def test_the_error_that_a_member_ends_with_outlives_its_broker(broker: Broker) -> None:
    servers = await asyncio.to_thread(broker.start)
    async with KafkaLog(servers, session_timeout=6.0) as log:
        await log.create([TopicSpec("t", 1)])
        await log.append([Outgoing("t", None, b"before")])
        with pytest.raises(Unreachable, match="this one"):
            async with log.subscribe("g", ["t"]) as member:
                while not await member.poll(1.0):
                    pass
                await asyncio.to_thread(broker.stop)
                assert await member.poll(1.0) == {}
                raise Unreachable(servers, "this one")


class FakeTorn:
    """A client that hands on the end of a task that it has cancelled itself, as aiokafka's fetcher does."""

    def __init__(self, error: Exception | None = None) -> None:
        self._client, self.closed, self._error = self, False, error

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._error is not None:
            raise self._error
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task


@pytest.mark.parametrize("error", [None, OSError("reset")])
async def test_closing_is_quiet(error: Exception | None) -> None:
    await close_client(torn := FakeTorn(error))
    assert torn.closed


async def test_being_cancelled_while_closing_is_still_seen() -> None:
    begun = asyncio.Event()

    class FakeEndless(FakeTorn):
        async def close(self) -> None:
            if not begun.is_set():
                begun.set()
                await asyncio.Event().wait()

    closing = asyncio.create_task(close_client(FakeEndless()))
    await begun.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
