"""What the tests of this folder do to a log behind its back: retention, and a transaction that aborts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import TopicNames
from streams.log.memory import MemoryLog
from streams.log.port import BATCH_LIMIT, EventLog, Outgoing, TopicSpec
from tests.support.broker import broker

__all__ = ["broker", "faults", "topic"]


class Faults(Protocol):
    async def narrow(self, topic: str, limit: int) -> None:
        """Somebody gives the topic another limit than it had when the log asked."""
        ...

    async def delete(self, topic: str) -> None: ...

    async def truncate(self, topic: str, partition: int, before: int) -> None: ...

    async def abort(self, records: Sequence[Outgoing]) -> None: ...


class MemoryFaults:
    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    async def narrow(self, topic: str, limit: int) -> None:
        self.log._specs[topic] = self.log._specs[topic]._replace(config={"max.message.bytes": str(limit)})

    async def delete(self, topic: str) -> None:
        self.log.delete(topic)

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        self.log.truncate(topic, partition, before)

    async def abort(self, records: Sequence[Outgoing]) -> None:
        self.log.abort(records)


class KafkaFaults:
    def __init__(self, log: EventLog, bootstrap_servers: str) -> None:
        self.log = log
        self.servers = bootstrap_servers

    async def narrow(self, topic: str, limit: int) -> None:
        config = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(limit)})
        async with self._admin() as admin:
            await admin.alter_configs([config])

    async def delete(self, topic: str) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([topic])

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        async with self._admin() as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def abort(self, records: Sequence[Outgoing]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.servers, transactional_id=str(uuid4())) as producer:
            await producer.begin_transaction()
            written = {}
            for topic, key, value, _, partition, _ in records:
                sent = await producer.send_and_wait(topic, value, key, partition)
                written[topic, sent.partition] = sent.offset
            await producer.abort_transaction()
        # The coordinator answers before the markers stand in the log.
        for (topic, partition), last in written.items():
            while (await self.log.ends(topic))[partition] < last + 2:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)


@pytest.fixture
def faults(backend: str, log: EventLog, request: pytest.FixtureRequest) -> Faults:
    if isinstance(log, MemoryLog):
        return MemoryFaults(log)
    return KafkaFaults(log, request.getfixturevalue("stack").bootstrap_servers)


@pytest.fixture
async def topic(log: EventLog, names: TopicNames) -> str:
    """One empty topic with two partitions."""
    name = names.wire("contract")
    await log.create([TopicSpec(name, 2, {"max.message.bytes": str(BATCH_LIMIT)})])
    return name
