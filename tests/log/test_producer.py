"""The Python producer on every backend."""

from __future__ import annotations

import pytest

from schemas.codec.codec import decode
from schemas.company import TextIngested
from schemas.envelope import Event, Origin
from schemas.rejected import Unusable
from schemas.topics import BY_NAME, TopicNames
from streams.errors import TooLarge
from streams.log.kafka.admin import wanted
from streams.log.kafka.producer import BATCH, Producer
from streams.log.memory import MemoryLog
from streams.log.port import EventLog, Record

TEXT = {"type": "text.ingested", "company": "acme", "text": "hello"}


@pytest.fixture
async def topic(log: EventLog, names: TopicNames) -> str:
    (spec,) = wanted(names, [BY_NAME["company-data"]])
    await log.create([spec])
    return spec.name


async def events(log: EventLog, topic: str) -> list[Event]:
    found = []
    for partition in await log.ends(topic):
        async for batch in log.read(topic, partition, 0):
            found += [event_in(record) for record in batch]
    return found


def event_in(record: Record) -> Event:
    origin = Origin(record.topic, record.partition, record.offset)
    decoded = decode(record.value, origin, record.timestamp, record.headers)
    assert isinstance(decoded, Event), decoded
    return decoded


async def test_a_dict_becomes_a_typed_event_in_avro(log: EventLog, names: TopicNames, topic: str) -> None:
    async with Producer(log, names) as producer:
        position = await producer.send({**TEXT, "entity": "cust-1"})
    (batch,) = [batch async for batch in log.read(topic, position.partition, position.offset)]
    assert batch[0].key == b"acme/cust-1"
    assert (batch[0].value or b"")[:2] == b"\xc3\x01"
    (event,) = await events(log, topic)
    assert isinstance(event, TextIngested)
    assert (event.text, event.entity, event.correlation) == ("hello", "cust-1", event.id)


async def test_what_the_dict_says_is_kept(log: EventLog, names: TopicNames, topic: str) -> None:
    await Producer(log, names).send({**TEXT, "id": "mine", "time": 5, "correlation": "story"})
    (event,) = await events(log, topic)
    assert (event.id, event.time, event.correlation) == ("mine", 5, "story")


async def test_a_typed_event_arrives_as_it_is(log: EventLog, names: TopicNames, topic: str) -> None:
    sent = TextIngested(id="1", company="acme", time=7, correlation="1", text="typed")
    await Producer(log, names).send(sent)
    assert await events(log, topic) == [sent]


async def test_many_events_arrive_in_order_with_their_positions(log: EventLog, names: TopicNames, topic: str) -> None:
    count = 2 * BATCH + 7
    given = ({**TEXT, "id": str(n), "entity": f"e{n % 5}"} for n in range(count))
    positions = await Producer(log, names).send_many(given)
    assert len(set(positions)) == count
    stored = await events(log, topic)
    assert len(stored) == count
    for entity in range(5):
        assert [int(e.id) for e in stored if int(e.id) % 5 == entity] == list(range(entity, count, 5))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**TEXT, "type": "text.eaten"}, "unknown_event"),
        ({**TEXT, "text": 5}, "wrong_type"),
        ({**TEXT, "txt": "x"}, "wrong_type"),
        ({"type": "text.ingested", "text": "x"}, "missing_company"),
        ({**TEXT, "company": "../acme"}, "bad_company"),
        ({**TEXT, "time": 2**63}, "bad_time"),
        ({**TEXT, "version": 99}, "newer_version"),
        ({**TEXT, "text": "\ud800"}, "bad_utf8"),
        (
            {
                "type": "tool.returned",
                "company": "a",
                "call": "c",
                "job": "j",
                "tool": "t",
                "ok": True,
                "status": 2**70,
            },
            "wrong_type",
        ),
    ],
)
async def test_what_is_no_event_is_refused_with_its_reason(row: dict[str, object], reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        await Producer(MemoryLog()).send(row)
    assert caught.value.reason == reason


async def test_a_refused_event_keeps_those_before_it(log: EventLog, names: TopicNames, topic: str) -> None:
    with pytest.raises(Unusable):
        await Producer(log, names).send_many([{**TEXT, "id": "1"}, {"type": "?"}, {**TEXT, "id": "3"}])
    assert [event.id for event in await events(log, topic)] == ["1"]


async def test_too_large_is_named(log: EventLog, names: TopicNames, topic: str) -> None:
    with pytest.raises(TooLarge, match=r"document\.ingested"):
        await Producer(log, names).send({**TEXT, "text": "x" * 1_000_001})
