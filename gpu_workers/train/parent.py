"""The worker's side of the child that trains: start it, hear it, never outlive it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import BinaryIO

import msgspec

from gpu_workers.errors import ChildDied
from gpu_workers.train.lines import Line, Outcome, Refused, Report, RunSpec, Taken, to_bytes

COMMAND = (sys.executable, "-m", "gpu_workers.train.child")
OnReport = Callable[[Report], Awaitable[None]]
Train = Callable[[RunSpec, OnReport], Awaitable[Outcome | Refused]]

_LINE_LIMIT = 1 << 20


async def train_in_child(spec: RunSpec, on_report: OnReport) -> Outcome | Refused:
    """A child for this one run. Cancelling kills it. `ChildDied` has the end of what it said on standard error."""
    async with KeptChild() as child:
        return await child(spec, on_report)


class KeptChild:
    """One run after the other in one child, which imports ahead: that takes longer than to load a small model.

    A child whose run did not end well goes with it. One on a GPU always does: that gives the memory back.
    """

    def __init__(self) -> None:
        self._child: _Child | None = None

    async def __aenter__(self) -> KeptChild:
        self._child = await _Child.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def __call__(self, spec: RunSpec, on_report: OnReport) -> Outcome | Refused:
        try:
            outcome = await self._run(spec, on_report)
        except BaseException:
            await self._end()
            raise
        if isinstance(outcome, Refused):
            await self._end()
        return outcome

    async def _run(self, spec: RunSpec, on_report: OnReport) -> Outcome | Refused:
        """By the child that is kept, or by another if that one ended before it took the spec."""
        if self._child and (outcome := await self._child.run(spec, on_report)):
            return outcome
        await self._end()
        self._child = child = await _Child.begin()
        if outcome := await child.run(spec, on_report):
            return outcome
        raise await child.died()

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, said: BinaryIO) -> None:
        self._process, self._said = process, said

    @classmethod
    async def begin(cls) -> _Child:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=pipe, stdout=pipe, stderr=said, limit=_LINE_LIMIT
        )
        return cls(process, said)

    async def run(self, spec: RunSpec, on_report: OnReport) -> Outcome | Refused | None:
        """None: it ended, and never took the spec."""
        assert self._process.stdin and self._process.stdout
        with suppress(ConnectionError):
            self._process.stdin.write(to_bytes(spec))  # and stays open: its end is ours
            await self._process.stdin.drain()
        taken = False
        async for line in self._process.stdout:
            heard: Line = msgspec.json.decode(line, type=Line)
            if isinstance(heard, Outcome | Refused):
                return heard
            if isinstance(heard, Report):
                await on_report(heard)
            taken = taken or isinstance(heard, Taken)
        if taken:
            raise await self.died()
        return None

    async def died(self) -> ChildDied:
        code = await self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip()[-600:]
        return ChildDied(
            f"the training process ended with code {code}: {last or 'it said nothing; was it killed for memory?'}"
        )

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._said.close()
