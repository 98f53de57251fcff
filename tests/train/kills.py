"""python -m tests.train.kills: workers and their children killed at any moment, over a real broker. A line a run.

Each run is asked for, and its worker or the child that trains is killed with SIGKILL, by chance and more than once. A
worker that is gone is started again, as a supervisor does. One outcome stands in the log for each run, one adapter for
each that completed, and with the bytes of the run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from gpu_workers.bases import tiny
from gpu_workers.bases.chat import render
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from rillfold.demo import data
from schemas.adapters import AdapterReady
from schemas.codec.codec import decode
from schemas.envelope import Event
from schemas.topics import BY_NAME, TopicNames
from schemas.training import TrainingCompleted, TrainingFailed, TrainingRefused, TrainingRequested
from streams.fold.view import View
from streams.log.kafka.admin import wanted
from streams.log.kafka.log import KafkaLog
from streams.log.outgoing import to_outgoing
from tests.kill.world import Servers
from tests.support.training import conversations
from tests.support.worker import WorkerProcess, external

USED = ("company-data", "training-request", "adapter-ready")
SETTINGS = '{"rank": 2, "steps": 40, "batch": 2, "warmup": 1, "evaluation_rows": 2}'
NAMES = TopicNames("kills-")
OUTCOMES = (TrainingCompleted, TrainingFailed, TrainingRefused)


class Bench:
    def __init__(self, log: KafkaLog, worker: WorkerProcess, dice: random.Random) -> None:
        self.log, self.worker, self.dice = log, worker, dice
        self.view = View(log, NAMES, TRAINING_RUNS)
        self.kills: Counter[str] = Counter()

    async def ask(self, run: str) -> None:
        request = TrainingRequested(
            id=run, company="acme", time=1, correlation=run, base_model="tiny", role=run, settings=SETTINGS
        )
        await self.log.append([to_outgoing(request, NAMES)])

    async def row(self, run: str) -> Run:
        return (await self.view.catch_up()).get(f"acme/{run}") or Run(company="acme", run=run)

    async def until(self, run: str, *statuses: str, seconds: float = 300) -> Run:
        stop = time.monotonic() + seconds
        while (row := await self.row(run)).status not in statuses:
            if time.monotonic() > stop:
                raise AssertionError(f"{run} is {row.status}\n{self.worker.said()[-2000:]}")
            await self.supervise()
            await asyncio.sleep(0.05)
        return row

    async def supervise(self) -> None:
        """A worker whose child is killed before it takes a run ends with 70: the machine is to blame, and no run."""
        if not self.worker.alive:
            await asyncio.to_thread(lambda: self.worker.start().until_ready())

    async def disturbed(self, run: str) -> Run:
        """Killed once or twice: at first soon after it is asked for or begins, then anywhere."""
        await self.ask(run)
        for _ in range(self.dice.choice((1, 1, 2))):
            if self.dice.random() < 0.8 and (await self.until(run, "accepted", *ENDED)).status in ENDED:
                break
            await asyncio.sleep(self.dice.uniform(0, 2.0))
            await self.supervise()
            self._kill(self.dice.choice(("worker", "child")))
        return await self.until(run, *ENDED)

    def _kill(self, what: str) -> None:
        self.kills[what] += 1
        if what == "worker":
            self.worker.kill()
            return
        for process in psutil.Process(self.worker.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "gpu_workers.train.child" in process.cmdline():
                    os.kill(process.pid, signal.SIGKILL)

    async def said(self, topic: str) -> list[Event]:
        wire, found = NAMES.wire(topic), []
        for partition, end in (await self.log.ends(wire)).items():
            async for batch in self.log.read(wire, partition, 0, end):
                found += [decode(r.value, r.origin, r.timestamp, r.headers) for r in batch]
        return [event for event in found if isinstance(event, Event)]

    async def judged(self, run: str, sha256: str) -> str | None:
        """What is wrong with its end; None: nothing."""
        ends = [event for event in await self.said("training-request") if isinstance(event, OUTCOMES)]
        mine = {event.id for event in ends if event.run == run}
        adapters = [each for each in await self.said("adapter-ready") if isinstance(each, AdapterReady)]
        ready = [each for each in adapters if each.run == run]
        row = await self.row(run)
        if len(mine) != 1:
            return f"{len(mine)} outcomes"
        if len({each.id for each in ready}) != (row.status == "completed"):
            return f"{row.status} with {len(ready)} adapters"
        if row.status == "completed" and row.sha256 != sha256:
            return f"other bytes: {row.sha256}"
        if row.status == "failed" and row.reason != "child_died":
            return f"failed: {row.reason} {row.detail}"
        return None


async def measured(runs: int, seed: int, folder: Path) -> int:
    base = tiny.make(folder / "tiny", [render(talk) for talk in data.training(data.ACME, 60)])
    servers = Servers(folder)
    servers.start_kafka()
    more = {"BASE_MODEL": str(base), "TRAIN_THREADS": "1", "SESSION_TIMEOUT": "6", "CACHE_DIR": str(folder / "cache")}
    environ = external(servers.bootstrap, NAMES.prefix, folder / "data", **more)
    worker = WorkerProcess("train", ("worker", "train"), environ, folder / "logs")
    held = 0
    try:
        async with KafkaLog(servers.bootstrap, session_timeout=6.0) as log:
            await log.create(wanted(NAMES, [BY_NAME[name] for name in USED]))
            await log.append([to_outgoing(event, NAMES) for event in conversations(data.ACME, 12, requests=3)])
            bench = Bench(log, worker.start().until_ready(), random.Random(seed))
            await bench.ask("undisturbed")
            sha256 = (await bench.until("undisturbed", *ENDED)).sha256
            if sha256 is None:
                raise AssertionError("the run that nobody disturbs gave no adapter")
            for n in range(runs):
                began, before = time.monotonic(), Counter(bench.kills)
                row = await bench.disturbed(f"r{n}")
                wrong = await bench.judged(f"r{n}", sha256)
                held += wrong is None
                struck = ", ".join(f"{who} {many}" for who, many in (bench.kills - before).items()) or "nobody"
                _say(f"run {n}: {row.status}, killed {struck}, {time.monotonic() - began:.0f} s: {wrong or 'holds'}")
            _say(f"seed {seed}: one outcome in {held} of {runs}; killed: {dict(bench.kills)}")
    finally:
        worker.close()
        servers.kill_kafka()
    return 0 if held == runs else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.train.kills", description=__doc__)
    arguments.add_argument("--runs", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    chosen = arguments.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measured(chosen.runs, chosen.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
