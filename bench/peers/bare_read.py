"""The least that Python can do with a changelog: aiokafka reads it from end to end and keeps nothing."""

import asyncio
import json
from time import perf_counter, process_time

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.peers.meter import Job, job, megabytes

FETCH = 1 << 20


async def read(job: Job) -> None:
    async with AIOKafkaConsumer(bootstrap_servers=job.bootstrap, max_partition_fetch_bytes=FETCH) as consumer:
        partitions = [TopicPartition(job.topic, n) for n in await consumer._client._wait_on_metadata(job.topic)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records, started, cpu = 0, perf_counter(), process_time()
        while records < job.events:
            for fetched in (await consumer.getmany(timeout_ms=1000)).values():
                records += len(fetched)
        seconds = perf_counter() - started
    figures = {"seconds": seconds, "rows": records, "cpu": process_time() - cpu, "peak_rss_mb": megabytes("VmHWM")}
    print(json.dumps({"restored": figures}))


if __name__ == "__main__":
    asyncio.run(read(job()))
