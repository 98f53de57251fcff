"""Whoever appends alone waits for its records to be read, and not for ever."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from rillfold.embedded.state import Endpoints
from schemas.topics import TopicNames
from streams.errors import AppendFailed, ShutOut
from streams.log.kafka.log import KafkaLog
from streams.log.port import EventLog, Outgoing, Reached, TopicSpec


async def test_what_nobody_can_read_behind_an_open_transaction_is_named_and_not_waited_for_without_end(
    stack: Endpoints, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.log.kafka.alone.READ_SECONDS", 0.3)
    topic, servers = names.wire("open"), stack.bootstrap_servers
    stranger = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=names.wire("stranger"))
    async with KafkaLog(servers) as log, stranger:
        await log.create([TopicSpec(topic, 1)])
        async with stranger.transaction():
            await stranger.send_and_wait(topic, b"open")
            async with log.alone(names.wire("work")) as alone:
                with pytest.raises(AppendFailed, match=f"nobody reads {topic}/0 up to 2"):
                    await alone.append([Outgoing(topic, None, b"behind", partition=0)])
        while (await log.ends(topic))[0] < 2:  # noqa: ASYNC110 - a broker tells nobody
            await asyncio.sleep(0.05)


async def test_how_far_a_group_has_come_is_said_with_the_records_or_not_at_all(
    log: EventLog, names: TopicNames
) -> None:
    topic, group = names.wire("work"), names.wire("group")
    await log.create([TopicSpec(topic, 2)])

    def said(offset: int) -> tuple[list[Outgoing], Reached]:
        return [Outgoing(topic, None, b"%d" % offset, partition=0)], Reached(group, {(topic, 1): offset})

    async with log.alone(group) as one:
        await one.append(*said(1))
        await one.append([], Reached(group, {(topic, 1): 2}))
        async with log.alone(group) as two:
            assert await log.committed(group, topic) == {1: 2}, "whoever begins the name anew knows where it stands"
            with pytest.raises(ShutOut):
                await one.append(*said(3))
            await two.append(*said(4))
        async with log.alone(group):
            assert await log.committed(group, topic) == {1: 4}
    assert [record.value async for batch in log.read(topic, 0, 0) for record in batch] == [b"1", b"4"]


async def test_who_only_asks_whether_it_is_still_alone_is_told(log: EventLog, names: TopicNames) -> None:
    """By a commit of where it stands, without a record."""
    topic, group = names.wire("work"), names.wire("group")
    await log.create([TopicSpec(topic, 1)])
    async with log.alone(group) as one:
        for _ in range(2):
            await one.append([], Reached(group, {(topic, 0): 0}))
        async with log.alone(group):
            with pytest.raises(ShutOut):
                await one.append([], Reached(group, {(topic, 0): 0}))
