"""Rows as plain dicts, validated and sent as Avro by our producer, against bare aiokafka sending the same ready bytes.

Every contestant sends the same events into the same topic and has every one acknowledged by an idempotent producer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from bench.events import Workload, event, key_numbers
from bench.harness import Figures, Ratio, compare
from bench.log import log as broker
from schemas.topics import BY_NAME, TopicNames
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import PRODUCED_BATCH_BYTES, KafkaLog
from streams.log.kafka.producer import Producer
from streams.log.outgoing import event_of, to_outgoing
from streams.log.port import Outgoing

LOAD = Workload(events=50_000)
WARM = 2_000
NAMES = TopicNames("bench-produce-")
RUNS = 7
Rows = Sequence[dict[str, Any]]
Ready = Sequence[Outgoing]
PEER = {"acks": "all", "enable_idempotence": True}


def main() -> None:
    rows = [msgspec.to_builtins(event(LOAD, n, key)) for n, key in enumerate(key_numbers(LOAD))]
    ready = [to_outgoing(event_of(row, str, 0), NAMES) for row in rows]
    with broker("produce") as servers:
        asyncio.run(create(servers))
        compare(
            "produce",
            {
                "rillfold": partial(measured, rillfold, servers, rows),
                "rillfold, ready bytes": partial(measured, log, servers, ready),
                "aiokafka": partial(measured, aiokafka, servers, ready),
                "aiokafka, larger batches": partial(measured, aiokafka_large, servers, ready),
            },
            {
                "aiokafka": Ratio("rows_per_s", "rillfold", "aiokafka"),
                "aiokafka_large": Ratio("rows_per_s", "rillfold", "aiokafka, larger batches"),
            },
            RUNS,
        )


async def rillfold(servers: str, rows: Rows) -> float:
    async with Producer(servers, NAMES) as producer:
        await producer.send_many(rows[:WARM])
        begun = time.perf_counter()
        await producer.send_many(rows)
        return time.perf_counter() - begun


async def log(servers: str, ready: Ready) -> float:
    async with KafkaLog(servers) as log:
        await log.append(ready[:WARM])
        begun = time.perf_counter()
        await log.append(ready)
        return time.perf_counter() - begun


async def aiokafka(servers: str, ready: Ready) -> float:
    return await one_by_one(AIOKafkaProducer(bootstrap_servers=servers, **PEER), ready)


async def aiokafka_large(servers: str, ready: Ready) -> float:
    """With our batch size instead of its default of 16 KiB, and a pause in which batches can fill."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=PRODUCED_BATCH_BYTES, linger_ms=5, **PEER)
    return await one_by_one(producer, ready)


async def one_by_one(producer: AIOKafkaProducer, ready: Ready) -> float:
    """As its documentation shows it: a future for each record, all awaited at the end."""
    async with producer:
        for record in ready[:WARM]:
            await producer.send(record.topic, record.value, record.key)
        await producer.flush()
        begun = time.perf_counter()
        sent = [await producer.send(record.topic, record.value, record.key) for record in ready]
        await asyncio.gather(*sent)
        return time.perf_counter() - begun


def measured(contestant: Callable[[str, Any], Awaitable[float]], servers: str, rows: Sequence[Any]) -> Figures:
    async def run() -> float:
        return await contestant(servers, rows)

    return {"rows_per_s": len(rows) / asyncio.run(run())}


async def create(servers: str) -> None:
    async with KafkaLog(servers) as log:
        await log.create(wanted(NAMES, [BY_NAME["company-data"]]))


if __name__ == "__main__":
    main()
