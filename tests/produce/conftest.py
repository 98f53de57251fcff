"""A topic for strangers, and a reader that says what they meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from rillfold.embedded.stack import Endpoints
from schemas.codec.codec import SchemaIds, decode
from schemas.envelope import Event, Origin
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.port import Record


class Place(NamedTuple):
    servers: str
    topic: str


Arrived = Callable[..., Awaitable[list[tuple[Record, Event]]]]


@pytest.fixture
async def kafka(stack: Endpoints) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(stack.bootstrap_servers) as log:
        yield log


@pytest.fixture
async def place(kafka: KafkaLog, stack: Endpoints, names: TopicNames) -> Place:
    (spec,) = wanted(names, [BY_NAME["company-data"]])
    await kafka.create([spec])
    return Place(stack.bootstrap_servers, spec.name)


@pytest.fixture
def arrived(kafka: KafkaLog, place: Place) -> Arrived:
    """Every record of the topic with the event that it decodes to, in partition order, once `count` are there."""

    async def read(count: int, ids: SchemaIds | None = None) -> list[tuple[Record, Event]]:
        while sum((await kafka.ends(place.topic)).values()) < count:  # noqa: ASYNC110  no log tells that it grew
            await asyncio.sleep(0.02)
        found = []
        for partition in await kafka.ends(place.topic):
            async for batch in kafka.read(place.topic, partition, 0):
                for record in batch:
                    origin = Origin(record.topic, record.partition, record.offset)
                    event = decode(record.value, origin, record.timestamp, record.headers, ids or {})
                    assert isinstance(event, Event), event
                    found.append((record, event))
        assert len(found) == count
        return found

    return read
