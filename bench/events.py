"""Fills a topic with company data, the same bytes for a seed, and says what a right count of them finds."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import murmur2

from schemas.company import AgentOutputIngested, RecordIngested
from schemas.envelope import Event
from schemas.topics import by_entity

FIRST_TIME = 1_767_225_600_000_000
BATCH_BYTES = 128 * 1024
COMPRESSION = "lz4"
COMPANIES = 50
STATES = ("open", "paid", "shipped", "returned", "disputed")
PROMPTS = (
    "Where is my parcel?",
    "Refund order 4711, please, it came broken.",
    "Change the delivery address to Hamburg.",
)


class Truth(NamedTuple):
    """What every peer must arrive at. The digest sums crc32(key) over all events, so that order does not matter."""

    events: int
    keys: int
    digest: int


class Workload(NamedTuple):
    events: int = 1_000_000
    keys: int = 1_000
    partitions: int = 4
    seed: int = 20_261_121

    @property
    def topic(self) -> str:
        return f"bench-company-data-{self.events}-{self.keys}-{self.partitions}"


def key_numbers(load: Workload) -> Iterator[int]:
    """One shuffled round of all keys after the other: every key occurs, and no order helps a cache."""
    dice = random.Random(load.seed)
    numbers = list(range(load.keys))
    for start in range(0, load.events, load.keys):
        dice.shuffle(numbers)
        yield from numbers[: load.events - start]


def event(load: Workload, n: int, key: int) -> Event:
    """Every fourth is an agent's answer, the others are records; 200 to 260 bytes as Avro."""
    story = str(UUID(int=(load.seed << 64) + n - n % 3))
    envelope: dict[str, Any] = {
        "id": str(UUID(int=(load.seed << 64) + n)),
        "company": f"company-{key % COMPANIES:03d}",
        "time": FIRST_TIME + n * 1000,
        "correlation": story,
        "entity": f"entity-{key:07d}",
    }
    if n % 4 == 0:
        return AgentOutputIngested(
            **envelope, agent="support", prompt=PROMPTS[n % 3], output=f"Done, ticket {n}.", success=n % 5 > 0
        )
    data = f'{{"amount":{n % 9973},"currency":"EUR","order":"{n:012d}","status":"{STATES[n % 5]}"}}'
    return RecordIngested(**envelope, kind="order", data=data)


async def fill(bootstrap: str, load: Workload, encode: Callable[[Event], bytes]) -> Truth:
    """Makes the topic anew and returns when every event is acknowledged."""
    await recreate(bootstrap, load)
    async with producer(bootstrap) as sends:
        return await pour(sends, load, encode)


def producer(bootstrap: str, **options: Any) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", compression_type=COMPRESSION, max_batch_size=BATCH_BYTES, **options
    )


async def pour(sends: AIOKafkaProducer, load: Workload, encode: Callable[[Event], bytes]) -> Truth:
    digest = 0
    keys: dict[int, tuple[int, bytes]] = {}
    builders = [sends.create_batch() for _ in range(load.partitions)]
    for n, number in enumerate(key_numbers(load)):
        made = event(load, n, number)
        if number not in keys:
            key = by_entity(made).encode()
            keys[number] = ((murmur2(key) & 0x7FFFFFFF) % load.partitions, key)
        partition, key = keys[number]
        digest += crc32(key)
        value, stamp = encode(made), made.time // 1000
        if builders[partition].append(key=key, value=value, timestamp=stamp) is None:
            await sends.send_batch(builders[partition], load.topic, partition=partition)
            builders[partition] = sends.create_batch()
            builders[partition].append(key=key, value=value, timestamp=stamp)
    for partition, builder in enumerate(builders):
        await sends.send_batch(builder, load.topic, partition=partition)
    await sends.flush()
    return Truth(load.events, len(keys), digest & (2**64 - 1))


async def recreate(bootstrap: str, load: Workload) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if load.topic in await admin.list_topics():
            await admin.delete_topics([load.topic])
        await admin.create_topics([NewTopic(load.topic, load.partitions, 1, topic_configs={"retention.ms": "-1"})])
    finally:
        await admin.close()
