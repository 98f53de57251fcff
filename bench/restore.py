"""A million rows from the changelog on an empty disk, and a restart on a full one, against a bare read of the topic."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from bench.harness import Figures, Ratio, options, report, take_turns
from bench.log import log
from bench.peers import child
from bench.peers.meter import Job
from bench.peers.rillfold_fold import COUNTER, Count
from schemas.topics import TopicNames
from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec
from streams.state.changelog import Marker, RowCodec, marker_record, topic_of
from streams.state.prepare import prepare

ROWS, PARTITIONS = 1_000_000, 4
US, RESTART, BARE = "rillfold, empty disk", "rillfold, restart", "bare aiokafka read"
RATIOS = {"bare_read": Ratio("rows_per_s", US, BARE), "restart": Ratio("seconds", RESTART, US)}


async def fill(bootstrap: str, prefix: str, rows: int) -> str:
    """Rows as a fold would leave them: each partition's by batches, the marker last."""
    changelog, codec = topic_of(COUNTER, prefix), RowCodec(Count)
    async with KafkaLog(bootstrap) as event_log:
        await event_log.create([TopicSpec(f"{prefix}company-data", PARTITIONS)])
        await prepare(event_log, [COUNTER], TopicNames(prefix))
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=900_000) as producer:
        for partition in range(PARTITIONS):
            batch = producer.create_batch()
            for n in range(partition, rows, PARTITIONS):
                key = f"company-{n % 50:03d}/entity-{n:07d}".encode()
                value = codec.encode(Count(n), "company-data", partition, n)
                if batch.append(timestamp=None, key=key, value=value) is None:
                    await producer.send_batch(batch, changelog, partition=partition)
                    batch = producer.create_batch()
                    batch.append(timestamp=None, key=key, value=value)
            key, value = marker_record(Marker(f"{prefix}company-data", partition, 0))
            await producer.send_batch(batch, changelog, partition=partition)
            await producer.send_and_wait(changelog, value, key, partition)
        await producer.flush()
    return changelog


class Ground:
    def __init__(self, bootstrap: str, prefix: str, changelog: str, rows: int) -> None:
        self._bootstrap, self._prefix, self._changelog, self._rows = bootstrap, prefix, changelog, rows
        self._disk = TemporaryDirectory(prefix="bench-restore-")

    def empty_disk(self) -> Figures:
        self._disk = TemporaryDirectory(prefix="bench-restore-")
        return self._run("restore", self._prefix, self._disk.name)

    def restart(self) -> Figures:
        if not any(Path(self._disk.name).iterdir()):
            self.empty_disk()
        return self._run("restore", self._prefix, self._disk.name)

    def bare(self) -> Figures:
        return self._run("bare_read", self._changelog, "")

    def _run(self, module: str, topic: str, scratch: str) -> Figures:
        job = Job(self._bootstrap, topic, self._rows, scratch, f"{self._prefix}{uuid4().hex[:8]}")
        figures = child.report(module, child.python(module)(job), "restored")["restored"]
        return {
            "rows_per_s": self._rows / figures["seconds"],
            "seconds": figures["seconds"],
            "cpu_s": figures["cpu"],
            "peak_rss_mb": figures["peak_rss_mb"],
        }


def main() -> None:
    given = options(__doc__, rows=ROWS).parse_args()
    with log("restore") as bootstrap:
        prefix = f"bench-restore-{uuid4().hex[:6]}-"
        changelog = asyncio.run(fill(bootstrap, prefix, given.rows))
        ground = Ground(bootstrap, prefix, changelog, given.rows)
        contestants = {US: ground.empty_disk, RESTART: ground.restart, BARE: ground.bare}
        results, ratios = take_turns("restore", contestants, RATIOS, given.runs)
    report("restore", given.runs, results, ratios)


if __name__ == "__main__":
    main()
