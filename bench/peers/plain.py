"""The least that Python can do with these bytes: aiokafka's getmany, decode, count in a dict, keep nothing."""

import asyncio
import gc

from aiokafka import AIOKafkaConsumer

from bench.peers.avro_dict import decoder
from bench.peers.meter import Job, Meter, job

FETCH = 1 << 20


async def count(job: Job) -> None:
    decode, counts, meter = decoder(), dict[bytes, int](), Meter(job.events)
    consumer = AIOKafkaConsumer(
        job.topic, bootstrap_servers=job.bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH
    )
    meter.start()
    async with consumer:
        done = False
        while not done:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    if decode(record.value)["company"]:
                        counts[record.key] = counts.get(record.key, 0) + 1
                done = meter.add(len(records))
        meter.stop()
    meter.report({key.decode(): n for key, n in counts.items()})


if __name__ == "__main__":
    gc.freeze()
    asyncio.run(count(job()))
