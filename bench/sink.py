"""The rate at which Postgres takes a changelog's records, against the rate at which the fold flat out makes them.

Each alone, on the same events: a follower that lags writes only the newest value of each row.
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from bench.events import Truth, Workload, fill
from bench.harness import Contestant, Figures, Ratio, compare, options
from bench.peers import child
from bench.peers.meter import Job
from bench.peers.rillfold_fold import COUNTER
from rillfold.embedded.stack import running
from rillfold.embedded.state import Endpoints
from rillfold.settings import from_env
from schemas.codec.codec import encode
from streams.log.kafka.log import KafkaLog
from streams.state.changelog import topic_of

EVENTS, KEYS = 1_000_000, (1_000, 100_000)


class Ground:
    """One workload, and the changelog that the last fold has left."""

    def __init__(self, stack: Endpoints, load: Workload, truth: Truth) -> None:
        self._stack, self._load, self._truth = stack, load, truth
        self._left = ""

    def fold(self) -> Figures:
        bootstrap, id_ = self._stack.bootstrap_servers, f"bench-sink-{uuid4().hex[:8]}"
        command = child.python("rillfold_fold")
        figures = child.run("rillfold", command, bootstrap, self._load.topic, self._truth, id_)
        self._left = f"{id_}-"
        seconds = self._load.events / figures["events_per_s"]
        return {"records_per_s": asyncio.run(records(bootstrap, self._left)) / seconds, **figures}

    def sink(self) -> Figures:
        if not self._left:
            self.fold()
        job = Job(self._stack.bootstrap_servers, self._left, self._load.events, "", f"bench_{uuid4().hex[:8]}")
        command = child.python("rillfold_sink", str(self._stack.postgres_dsn))
        told = child.report("The sink", command(job), "followed")["followed"]
        if (told["counted"], told["rows"]) != (self._truth.events, self._truth.keys):
            raise SystemExit(f"The sink is wrong, so its speed means nothing: {told}, not {self._truth}")
        return {
            "records_per_s": told["records"] / told["seconds"],
            "written_per_s": told["written"] / told["seconds"],
            "cpu_s_per_million": told["cpu"] / told["records"] * 1e6,
        }


async def records(bootstrap: str, prefix: str) -> int:
    async with KafkaLog(bootstrap) as event_log:
        return sum((await event_log.ends(topic_of(COUNTER, prefix))).values())


def main() -> None:
    given = options(__doc__, events=EVENTS).parse_args()
    with (
        TemporaryDirectory(prefix="bench-sink-") as folder,
        running(Path(folder) / "stack", settings=from_env()) as stack,
    ):
        contestants: dict[str, Contestant] = {}
        ratios: dict[str, Ratio] = {}
        for keys in KEYS:
            load = Workload(given.events, keys)
            ground = Ground(stack, load, asyncio.run(fill(stack.bootstrap_servers, load, encode)))
            fold, sink = f"fold, {keys:,} keys", f"sink, {keys:,} keys"
            contestants |= {fold: ground.fold, sink: ground.sink}
            ratios[f"fold_{keys}_keys"] = Ratio("records_per_s", sink, fold)
        compare("sink", contestants, ratios, given.runs)


if __name__ == "__main__":
    main()
