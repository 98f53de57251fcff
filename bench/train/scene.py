"""What all parts stand on: a base model, the demo's conversations as rows, and runs in children of their own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.part import Missing
from bench.train.spoilt import conversation
from gpu_workers.bases import tiny
from gpu_workers.bases.chat import render
from gpu_workers.bases.load import prepare
from gpu_workers.train.lines import RunSpec
from processors.training.settings import METHOD_NAMES, TrainSettings
from rillfold.demo import data
from rillfold.settings import from_env
from schemas.envelope import Event
from schemas.topics import TopicNames
from streams.history import replay
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import TopicSpec

CHECKOUT = Path(__file__).parents[2]
ORDER = 60 * 60
"""Seconds that a child may take."""


class Rows(NamedTuple):
    path: Path
    sha256: str


class Scene:
    """Of one run of the bench. `threads` is what each child has, `steps` how many are timed."""

    def __init__(self, root: Path, turns: int, threads: int, steps: int) -> None:
        self.root, self.turns, self.slow, self.threads, self.steps = root, turns, turns, threads, steps
        settings = from_env()
        self.base, self.cache = settings.base_model, settings.cache_dir

    @cached_property
    def folder(self) -> Path:
        """Of the base model, as anybody reads it."""
        return prepare(self.base, self.cache)

    @cached_property
    def tiny(self) -> Path:
        """A base of a few hundred kilobytes, for proofs that take many runs."""
        talks = [talk for company in data.COMPANIES for talk in data.training(company, 60)]
        return tiny.make(self.root / "tiny", [render(talk) for talk in talks])

    @cached_property
    def rows(self) -> Rows:
        """What the demo trains and measures on."""
        return demo_rows(self.root / "demo.jsonl")

    def written(self, name: str, events: Sequence[Event], **how: Any) -> Rows:
        """A company's events as the dataset's rule makes rows of them."""
        path = self.root / f"{name}.jsonl"
        return Rows(path, asyncio.run(_built(events, path, how)))

    def made_again(self, name: str) -> Rows:
        """The demo's rows, from its events, by another process."""
        path = self.root / f"{name}.jsonl"
        return Rows(path, child("built", str(path), self.threads)["rows_sha256"])

    def spec(self, out: str, method: str, settings: TrainSettings, rows: Rows, base: str | None = None) -> RunSpec:
        if method not in METHOD_NAMES:
            raise Missing(f"no method {method}: there are {', '.join(METHOD_NAMES)}")
        folder = self.root / out
        folder.mkdir(parents=True)
        return RunSpec(
            rows=rows.path,
            rows_sha256=rows.sha256,
            out=folder,
            cache=self.cache,
            base_model=base or self.base,
            method=method,
            settings=settings,
            threads=self.threads,
        )


def demo_rows(path: Path) -> Rows:
    measured = [data.conversation(data.ACME, request)[:2] for request in data.held_out(data.ACME)]
    talks = [*data.training(data.ACME), *measured]
    events = [conversation(data.ACME, n, talk) for n, talk in enumerate(talks)]
    return Rows(path, asyncio.run(_built(events, path, {})))


async def _built(events: Sequence[Event], path: Path, how: dict[str, Any]) -> str:
    names, log = TopicNames(), MemoryLog()
    await log.create([TopicSpec(names.wire(topic), 1) for topic in ("company-data", "tool-result")])
    await log.append([to_outgoing(event, names) for event in events])
    ranges = await replay.everything_up_to_now(log, names)
    return (await replay.build(log, names, data.ACME.id, ranges, path, **how)).rows_sha256


def child(module: str, job: object, threads: int) -> dict[str, Any]:
    """One JSON object in, one out, from a process of its own: its time and its memory are nobody else's."""
    known = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", f"bench.train.{module}", json.dumps(job, default=str)]
    done = subprocess.run(
        line, check=False, cwd=CHECKOUT, env=os.environ | known, capture_output=True, text=True, timeout=ORDER
    )
    if done.returncode != 0:
        raise SystemExit(f"{module} ended with {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@contextmanager
def scene(turns: int, threads: int, steps: int) -> Iterator[Scene]:
    with TemporaryDirectory(prefix="bench-train-") as root:
        yield Scene(Path(root), turns, threads, steps)
