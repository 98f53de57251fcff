"""A log with a registry hands records out when their schema ids are known; a registry that is down is waited for."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from rillfold.embedded.stack import Endpoints
from schemas.codec.catalog import catalog
from schemas.codec.codec import decode, encode
from schemas.envelope import Origin
from schemas.jobs import JobCompleted
from schemas.rejected import Rejected
from streams.log.kafka.log import KafkaLog
from streams.log.kafka.registry import learner
from streams.log.port import Outgoing, Record, TopicSpec
from tests.support.registry import LocalRegistry, local_registry

EVENT = JobCompleted(id="1", company="acme", time=1, correlation="1", job="j", answer="42", steps=3)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRegistry]:
    monkeypatch.setattr("streams.log.kafka.registry.RETRY_SECONDS", 0.05)
    with local_registry() as server:
        yield server
    catalog().by_id.clear()


def framed(number: int) -> bytes:
    return b"\x00" + number.to_bytes(4, "big") + encode(EVENT)[10:]


async def first(log: KafkaLog, topic: str) -> list[Record]:
    async with aclosing(log.read(topic, 0, 0)) as reading:
        return list(await anext(reading))


async def test_a_registry_that_is_down_is_waited_for_and_never_makes_poison(
    stack: Endpoints, registry: LocalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    number = registry.add(json.dumps(catalog().by_class[JobCompleted].source))
    topic = f"learning-{number}-{id(registry)}"
    registry.fault = "503"
    async with KafkaLog(stack.bootstrap_servers, learn=learner(registry.url)) as log:
        await log.create([TopicSpec(topic, 1)])
        await log.append([Outgoing(topic, None, framed(number)), Outgoing(topic, None, framed(999))])
        with caplog.at_level(logging.WARNING, "streams.log.kafka.registry"):
            reading = asyncio.create_task(first(log, topic))
            while not caplog.records:  # noqa: ASYNC110 - it is asked in another thread
                await asyncio.sleep(0.01)
        assert not reading.done()
        registry.fault = None
        known, unknown = await reading
    assert decode(known.value, Origin(topic, 0, 0), 0) == EVENT
    refused = decode(unknown.value, Origin(topic, 0, 1), 0)
    assert isinstance(refused, Rejected) and refused.reason == "unknown_schema"
