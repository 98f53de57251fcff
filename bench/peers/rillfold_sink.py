"""Follows a changelog into Postgres as `rillfold worker sink` does, from its first record to its last."""

import asyncio
import json
import sys
from time import perf_counter, process_time

import psycopg

from bench.peers.meter import Job, job
from bench.peers.rillfold_fold import COUNTER
from streams.log.kafka.log import KafkaLog
from streams.owner.garbage import keep_garbage_rare
from streams.read_model.postgres import PostgresSink
from streams.read_model.schema import table_of
from streams.read_model.sink import Follower
from streams.state.changelog import topic_of


class Sink(PostgresSink):
    """Says when it was given the last of its partitions: the group's own time to agree is none of its."""

    async def take(self, changelog: str, partition: int) -> int:
        next_ = await super().take(changelog, partition)
        self.begun, self.cpu = perf_counter(), process_time()
        return next_


async def follow(job: Job, dsn: str) -> dict[str, float]:
    """`job.topic` is the prefix of the changelog, `job.id` the schema."""
    changelog = topic_of(COUNTER, job.topic)
    keep_garbage_rare()
    async with KafkaLog(job.bootstrap) as log, Sink(dsn, [COUNTER], job.id) as sink:
        follower, ends = Follower(sink, [COUNTER], job.topic), await log.ends(changelog)
        following = asyncio.create_task(follower.run(log, job.id))
        while any((follower.sight().positions.get((changelog, n)) or 0) < end for n, end in ends.items()):
            await asyncio.sleep(0.005)
            assert not following.done(), following.result()
        seconds, cpu = perf_counter() - sink.begun, process_time() - sink.cpu
        following.cancel()
        await asyncio.wait({following})
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        query = f'SELECT count(*), sum((row->>\'n\')::bigint) FROM "{job.id}"."{table_of(COUNTER)}"'
        (found,) = await (await connection.execute(query)).fetchall()
        await connection.execute(f'DROP SCHEMA "{job.id}" CASCADE')
    figures = {"records": sum(ends.values()), "written": follower.rows, "seconds": seconds, "cpu": cpu}
    return {**figures, "rows": int(found[0]), "counted": int(found[1])}


if __name__ == "__main__":
    print(json.dumps({"followed": asyncio.run(follow(job(), sys.argv[2]))}))
