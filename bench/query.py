"""Point queries while the fold runs flat out: what they wait, and what they cost it. Ours against itself at rest.

200 queries a second, each sent when it is due and timed from then, over connections that stay open, to the worker
that folds. The client shares the two cores with worker and broker.
"""

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit
from uuid import uuid4

from bench.events import Truth, Workload, event, fill
from bench.harness import Figures, Ratio, options, report, take_turns
from bench.log import log
from bench.peers import child
from bench.peers.meter import Job
from bench.peers.rillfold_fold import COUNTER
from bench.peers.rillfold_query import TOKEN
from schemas.codec.codec import encode

EVENTS, REST_EVENTS, KEYS = 1_000_000, 100_000, 1_000
PER_SECOND = 200
CONNECTIONS = 8
REST_SECONDS = 10.0
FIRST = 40
"""Rows that must be there before the clock runs: enough to have some of every partition."""
LIMIT = 300.0
ALONE, ASKED, REST = "fold alone", "fold and queries", "queries at rest"
RATIOS = {"p99": Ratio("p99_ms", ASKED, REST), "fold_rate": Ratio("events_per_s", ASKED, ALONE)}


class Worker:
    """The fold in a process of its own, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path, truth: Truth) -> None:
        self._process, self._data, self._truth = process, data, truth

    async def folded(self) -> Figures:
        """Its speed, when all are folded and right. `busy` is CPU by wall: where it is low, the fold waited."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            start = line.find(b'{"events"')
            if start >= 0:
                found = json.loads(line[start:])
                child.hold("The fold", found, self._truth)
                return {
                    "events_per_s": found["events"] / found["seconds"],
                    "busy": found["cpu_seconds"] / found["seconds"],
                }
        raise SystemExit("The worker ended before it had folded all.")

    async def answers(self, paths: Sequence[str]) -> tuple[str, int]:
        """Host and port, once it has all these rows."""
        waited_for = list(paths)
        while True:
            await asyncio.sleep(0.02)
            try:
                url = urlsplit(json.loads((self._data / "run" / "one.json").read_text())["url"])
                host, port = str(url.hostname), int(url.port or 0)
                reader, writer = await asyncio.open_connection(host, port)
            except (OSError, json.JSONDecodeError):
                continue
            while waited_for and await get(reader, writer, waited_for[-1]) == 200:
                waited_for.pop()
            writer.close()
            if not waited_for:
                return host, port


@asynccontextmanager
async def worker(bootstrap: str, load: Workload, truth: Truth) -> AsyncIterator[Worker]:
    with TemporaryDirectory(prefix="bench-query-") as scratch:
        job = Job(bootstrap, load.topic, truth.events, scratch, f"bench-query-{uuid4().hex[:8]}")
        command = child.python("rillfold_query")(job)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=child.CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=1 << 20
        )
        try:
            async with asyncio.timeout(LIMIT):
                yield Worker(process, Path(scratch), truth)
        finally:
            process.kill()
            await process.wait()


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length"))
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


async def ask(where: tuple[str, int], paths: list[str], enough: Callable[[], bool]) -> list[float]:
    """Seconds that each query took from the moment at which it was due. All must find their row."""
    loop, took, dice = asyncio.get_running_loop(), list[float](), random.Random(1)
    began = loop.time()

    async def connection(first: int) -> None:
        reader, writer = await asyncio.open_connection(*where)
        due = began + first / PER_SECOND
        while not enough():
            await asyncio.sleep(due - loop.time())
            status = await get(reader, writer, dice.choice(paths))
            if status != 200:
                raise SystemExit(f"A query was answered by {status}.")
            took.append(loop.time() - due)
            due += CONNECTIONS / PER_SECOND
        writer.close()

    await asyncio.gather(*(connection(n) for n in range(CONNECTIONS)))
    return took


def paths_of(load: Workload) -> list[str]:
    keys = {COUNTER.key(event(load, n, n)) for n in range(load.keys)}
    return sorted(f"/rows/{COUNTER.name}/{quote(str(key), safe='')}" for key in keys)


async def alone(bootstrap: str, load: Workload, truth: Truth) -> Figures:
    async with worker(bootstrap, load, truth) as running:
        return await running.folded()


async def asked(bootstrap: str, load: Workload, truth: Truth) -> Figures:
    async with worker(bootstrap, load, truth) as running:
        folded, paths = asyncio.ensure_future(running.folded()), paths_of(load)
        took = await ask(await running.answers(paths[:FIRST]), paths, folded.done)
        return {**await folded, **waits(took)}


async def at_rest(bootstrap: str, load: Workload, truth: Truth) -> Figures:
    async with worker(bootstrap, load, truth) as running:
        await running.folded()
        paths, loop = paths_of(load), asyncio.get_running_loop()
        where = await running.answers(paths[:FIRST])
        until = loop.time() + REST_SECONDS
        return waits(await ask(where, paths, lambda: loop.time() > until))


def waits(took: list[float]) -> Figures:
    cuts = quantiles(took, n=100)
    return {"queries": len(took), "p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000, "max_ms": max(took) * 1000}


def main() -> None:
    given = options(__doc__, events=EVENTS).parse_args()
    with log("query") as bootstrap:
        whole, part = Workload(given.events, KEYS), Workload(min(given.events, REST_EVENTS), KEYS)
        truth, rest = (asyncio.run(fill(bootstrap, load, encode)) for load in (whole, part))
        contestants = {
            ALONE: lambda: asyncio.run(alone(bootstrap, whole, truth)),
            ASKED: lambda: asyncio.run(asked(bootstrap, whole, truth)),
            REST: lambda: asyncio.run(at_rest(bootstrap, part, rest)),
        }
        results, ratios = take_turns("query", contestants, RATIOS, given.runs)
    report("query", given.runs, results, ratios)


if __name__ == "__main__":
    main()
