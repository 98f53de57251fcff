"""Follows a changelog into Postgres as `rillfold worker sink` does, from its first record to its last."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter, process_time

import psycopg

from bench.peers.meter import Job, job
from bench.peers.rillfold_fold import COUNTER
from streams.changelog import topic_of
from streams.garbage import keep_garbage_rare
from streams.kafka import KafkaLog
from streams.sinks.postgres import PostgresSink
from streams.sinks.schema import table_of
from streams.sinks.sink import Follower


async def follow(job: Job, dsn: str) -> dict[str, float]:
    """`job.topic` is the prefix of the changelog, `job.id` the schema."""
    changelog = topic_of(COUNTER, job.topic)
    keep_garbage_rare()
    async with KafkaLog(job.bootstrap) as log, PostgresSink(dsn, [COUNTER], job.id) as sink:
        follower, ends = Follower(sink, [COUNTER], job.topic), await log.ends(changelog)
        async with log.subscribe(job.id, [changelog]) as member:
            while len(follower.sight().positions) < len(ends):
                await follower.step(member, log)
            begun, cpu = perf_counter(), process_time()
            while any((follower.sight().positions[changelog, n] or 0) < end for n, end in ends.items()):
                await follower.step(member, log)
            seconds, cpu = perf_counter() - begun, process_time() - cpu
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        query = f'SELECT count(*), sum((row->>\'n\')::bigint) FROM "{job.id}"."{table_of(COUNTER)}"'
        (found,) = await (await connection.execute(query)).fetchall()
        await connection.execute(f'DROP SCHEMA "{job.id}" CASCADE')
    figures = {"records": sum(ends.values()), "written": follower.rows, "seconds": seconds, "cpu": cpu}
    return {**figures, "rows": int(found[0]), "counted": int(found[1])}


if __name__ == "__main__":
    print(json.dumps({"followed": asyncio.run(follow(job(), sys.argv[2]))}))
