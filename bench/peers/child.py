"""Runs a peer in a process of its own and holds what it counted against the truth."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from bench.events import Truth
from bench.harness import Figures
from bench.peers.meter import Job

CHECKOUT = Path(__file__).parents[2]
LIMIT = 600.0
Command = Callable[[Job], Sequence[str]]


def python(module: str, *options: str) -> Command:
    def command(job: Job) -> Sequence[str]:
        return [sys.executable, "-m", f"bench.peers.{module}", json.dumps(job._asdict()), *options]

    return command


def report(name: str, line: Sequence[str], first: str, checkout: Path = CHECKOUT) -> Any:
    """The last JSON object with this first key that a process has printed."""
    done = subprocess.run(line, check=False, cwd=checkout, capture_output=True, text=True, timeout=LIMIT)
    # Faust's worker writes to the terminal before and after
    reports = re.findall(rf'\{{"{first}".*\}}', done.stdout)
    if done.returncode != 0 or not reports:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}")
    return json.loads(reports[-1])


def hold(name: str, found: Mapping[str, Any], truth: Truth) -> None:
    """Ends the bench where a peer counted wrong."""
    counted = Truth(found["counted"], found["keys"], found["digest"])
    if counted != truth or found["events"] != truth.events:
        raise SystemExit(f"{name} is wrong, so its speed means nothing: {counted} after {found['events']}, not {truth}")


def run(
    name: str,
    command: Command,
    bootstrap: str,
    topic: str,
    truth: Truth,
    id_: str | None = None,
    checkout: Path = CHECKOUT,
) -> Figures:
    """`id_` is what the peer calls what it creates, for whoever wants to find it afterwards."""
    with TemporaryDirectory(prefix=f"bench-{name}-") as scratch:
        job = Job(bootstrap, topic, truth.events, scratch, id_ or f"bench-{name}-{uuid4().hex[:8]}")
        found = report(name, command(job), "events", checkout)
    hold(name, found, truth)
    return {
        "events_per_s": found["events"] / found["seconds"],
        "warm_events_per_s": found["warm_events"] / found["seconds_warm"],
        "cpu_s_per_million": found["cpu_seconds"] / found["events"] * 1e6,
        "peak_rss_mb": found["peak_rss_mb"],
        "rss_growth": found.get("rss_growth", 1.0),
    }
