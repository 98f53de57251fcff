"""The worker's side of the child that trains: start it, hear it, never outlive it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gpu_workers.errors import ChildDied
from gpu_workers.train.lines import Line, Outcome, Refused, Report, RunSpec, to_bytes

COMMAND = (sys.executable, "-m", "gpu_workers.train.child")
OnReport = Callable[[Report], Awaitable[None]]
Train = Callable[[RunSpec, OnReport], Awaitable[Outcome | Refused]]

_LINE_LIMIT = 1 << 20


async def train_in_child(spec: RunSpec, on_report: OnReport) -> Outcome | Refused:
    """Cancelling this kills the child. `ChildDied` has the end of what it said on standard error."""
    said = spec.out.with_suffix(".log")
    with said.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=_LINE_LIMIT
        )
    try:
        assert child.stdin and child.stdout
        child.stdin.write(to_bytes(spec))  # and stays open: its end is ours
        await child.stdin.drain()
        async for line in child.stdout:
            heard: Line = msgspec.json.decode(line, type=Line)
            if not isinstance(heard, Report):
                return heard
            await on_report(heard)
        raise ChildDied(f"the training process ended with code {await child.wait()}: {_end_of(said)}")
    finally:
        await _gone(child)


async def _gone(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.kill()
    await child.wait()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-600:] or "it said nothing; was it killed for memory?"
