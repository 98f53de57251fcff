"""The broker goes away and comes back under a log that is in use."""

from __future__ import annotations

import asyncio
import time

import pytest

from schemas.topics import BY_NAME, TopicNames
from streams.errors import Unreachable
from streams.log.kafka import admin
from streams.log.kafka.client import close_client
from streams.log.kafka.log import KafkaLog
from streams.log.port import Outgoing, TopicSpec
from tests.support.broker import OwnBroker

EXPIRES = TopicSpec("clicks", 1, {"retention.ms": "3600000", **admin.CUT_BY_THE_CLOCK})
COMPACTED = TopicSpec("latest", 1, {"cleanup.policy": "compact", **admin.CUT_BY_THE_CLOCK})


async def test_an_append_waits_for_the_broker_and_lands_once(broker: OwnBroker) -> None:
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


async def test_the_error_that_a_member_ends_with_outlives_its_broker(broker: OwnBroker) -> None:
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


async def test_times_that_senders_make_up_cut_no_log_into_pieces(broker: OwnBroker) -> None:
    """Each piece stays open: some thousand records of a few bytes would end the broker."""
    servers, now = await asyncio.to_thread(broker.start), round(time.time() * 1000)
    specs = [*admin.wanted(TopicNames(), [BY_NAME["company-data"]]), EXPIRES, COMPACTED]
    async with KafkaLog(servers, session_timeout=6.0) as log:
        await log.create(specs)
        for topic in specs:
            for n in range(20):
                await log.append([Outgoing(topic.name, b"acme", b"x", partition=0, timestamp=now if n % 2 else 1)])
    assert [broker.segments(topic.name) for topic in specs] == [1, 1, 1]


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
