"""Two workers of a group on the two cores that they share with the broker, against one alone: ours against ourselves.

All workers hold their partitions before the events come, in one open transaction: its commit starts the clock.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4
from zlib import crc32

from bench.events import Truth, Workload, pour, producer, recreate
from bench.harness import Figures, Ratio, compare, options
from bench.log import log
from bench.peers import child
from bench.peers.meter import Job
from bench.peers.rillfold_fold import COUNTER, Count
from schemas.codec.codec import encode
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import RESERVED, RowCodec, topic_of

EVENTS, KEYS = 3_000_000, 1_000
ONE, TWO = "one worker", "two workers"
RATIOS = {"two_workers": Ratio("events_per_s", TWO, ONE)}
LIMIT = 300.0


@contextmanager
def workers(job: Job, names: Sequence[str]) -> Iterator[Path]:
    """Processes that tell in files of this folder what they do."""
    running = [
        subprocess.Popen(
            child.python("rillfold_share", name)(job),
            cwd=child.CHECKOUT,
            stdout=subprocess.DEVNULL,
            stderr=(Path(job.scratch) / f"{name}.err").open("w"),
        )
        for name in names
    ]
    try:
        yield Path(job.scratch)
    finally:
        for process in running:
            process.kill()
            process.wait()


async def until(folder: Path, names: Sequence[str], enough: Any) -> list[dict[str, float]]:
    async with asyncio.timeout(LIMIT):
        while True:
            await asyncio.sleep(0.01)
            files = [folder / f"{name}.json" for name in names]
            told = [json.loads(file.read_text()) for file in files if file.exists()]
            if len(told) == len(names) and enough(told):
                return told


async def race(bootstrap: str, load: Workload, names: Sequence[str]) -> Figures:
    share = load.partitions // len(names)
    await recreate(bootstrap, load)
    with TemporaryDirectory(prefix="bench-scale-") as scratch:
        job = Job(bootstrap, load.topic, load.events, scratch, f"bench-scale-{uuid4().hex[:8]}")
        # A broker ends a transaction after a minute: it begins once nothing else is waited for.
        async with producer(bootstrap, transactional_id=job.id) as sends:
            with workers(job, names) as folder:
                await until(folder, names, lambda told: all(one["holds"] == share for one in told))
                await sends.begin_transaction()
                truth = await pour(sends, load, encode)
                before = await until(folder, names, lambda told: all(one["holds"] == share for one in told))
                begun = perf_counter()
                await sends.commit_transaction()
                after = await until(folder, names, lambda told: sum(one["events"] for one in told) >= load.events)
        found = await changelog_says(bootstrap, f"{job.id}-")
    if found != truth:
        raise SystemExit(f"The fold is wrong, so its speed means nothing: {found}, not {truth}")
    cpu = sum(b["cpu"] - a["cpu"] for a, b in zip(before, after, strict=True))
    seconds = max(one["at"] for one in after) - begun
    return {"events_per_s": load.events / seconds, "cpu_s_per_million": cpu / load.events * 1e6}


async def changelog_says(bootstrap: str, prefix: str) -> Truth:
    """What a right count of the events would find, from the last row of each key."""
    counts, codec, changelog = dict[bytes, int](), RowCodec(Count), topic_of(COUNTER, prefix)
    async with KafkaLog(bootstrap) as event_log:
        for partition in await event_log.ends(changelog):
            async for batch in event_log.read(changelog, partition, 0):
                pairs = [(record.key or b"", record.value or b"") for record in batch]
                rows = ((key, value) for key, value in pairs if key and not key.startswith(RESERVED))
                counts |= {key: codec.decode(value).row.n for key, value in rows}
    digest = sum(crc32(key) * n for key, n in counts.items()) & (2**64 - 1)
    return Truth(sum(counts.values()), len(counts), digest)


def main() -> None:
    given = options(__doc__, events=EVENTS).parse_args()
    load = Workload(given.events, KEYS)
    with log("scale") as bootstrap:
        contestants = {
            ONE: lambda: asyncio.run(race(bootstrap, load, ["one"])),
            TWO: lambda: asyncio.run(race(bootstrap, load, ["one", "two"])),
        }
        compare("scale", contestants, RATIOS, given.runs)


if __name__ == "__main__":
    main()
