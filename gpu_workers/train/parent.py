"""The worker's side of the child that trains: start it, hear it, never outlive it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import BinaryIO

import msgspec

from gpu_workers.errors import ChildDied, Unhealthy
from gpu_workers.train.lines import Broken, Line, Report, Spec, SpecTaken, Trained, to_bytes

COMMAND = (sys.executable, "-m", "gpu_workers.train.child")
OnReport = Callable[[Report], Awaitable[None]]
Train = Callable[[Spec, OnReport], Awaitable[Trained | Broken]]

_LINE_LIMIT, _LAST_WORDS = 32 << 20, 4096
# A child that computes says so every five seconds. Short looks: one who slept with it must not find it silent.
SILENCE_SECONDS, SILENCES = 5.0, 12


async def train_in_child(spec: Spec, on_report: OnReport) -> Trained | Broken:
    """A child for this one run. Cancelling kills it. `ChildDied` has the end of what it said on standard error.

    `Unhealthy`: no child comes so far that it could take a run.
    """
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

    async def __call__(self, spec: Spec, on_report: OnReport) -> Trained | Broken:
        try:
            outcome = await self._run(spec, on_report)
        except BaseException:
            await self._end()
            raise
        if isinstance(outcome, Broken):
            await self._end()
        return outcome

    async def _run(self, spec: Spec, on_report: OnReport) -> Trained | Broken:
        """By the child that is kept, or by another if that one ended before it took the spec."""
        if self._child and (outcome := await self._child.run(spec, on_report)):
            return outcome
        await self._end()
        self._child = child = await _Child.begin()
        if outcome := await child.run(spec, on_report):
            return outcome
        raise Unhealthy(f"No run can begin on this machine: {await child.died()}. Mend that: the requests wait.")

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class _Child:
    def __init__(self, process: asyncio.subprocess.Process, said: BinaryIO) -> None:
        self._process, self._said = process, said
        self._runs = self._from = 0
        """Of what it said, only that is a run's which was said since it began."""

    @classmethod
    async def begin(cls) -> _Child:
        pipe = asyncio.subprocess.PIPE
        try:
            said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=pipe, stdout=pipe, stderr=said, limit=_LINE_LIMIT
            )
        except OSError as error:
            raise Unhealthy(f"No process that trains can be started here: {error}. Requests wait.") from error
        return cls(process, said)

    async def run(self, spec: Spec, on_report: OnReport) -> Trained | Broken | None:
        """None: it ended, and never took the spec."""
        assert self._process.stdin
        self._from = os.fstat(self._said.fileno()).st_size if self._runs else 0
        self._runs += 1
        with suppress(ConnectionError):
            self._process.stdin.write(to_bytes(spec))  # and stays open: its end is ours
            await self._process.stdin.drain()
        if not await self._took_it(on_report):
            return None
        while (heard := await self._hear()) is not None:
            if isinstance(heard, Trained | Broken):
                return heard
            if isinstance(heard, Report):
                await on_report(heard)
        raise await self.died()

    async def _took_it(self, on_report: OnReport) -> bool:
        """Until then no run is to blame, however the child ends."""
        with suppress(ChildDied):
            while (heard := await self._hear()) is not None:
                if isinstance(heard, SpecTaken):
                    return True
                if isinstance(heard, Report):
                    await on_report(heard)
        return False

    async def _hear(self) -> Line | None:
        """Its next line; None at its end. What is no line of ours is the end of it, too."""
        line = await self._line()
        if not line:
            return None
        try:
            heard: Line = msgspec.json.decode(line, type=Line)
            return heard
        except msgspec.DecodeError as error:
            raise ChildDied(f"the training process said what is no report: {error}") from error

    async def _line(self) -> bytes:
        assert self._process.stdout
        for _ in range(SILENCES):
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_SECONDS):
                    try:
                        return await self._process.stdout.readline()
                    except ValueError as error:
                        raise ChildDied(f"the training process said a line over {_LINE_LIMIT} bytes") from error
        raise ChildDied(f"the training process did nothing for {SILENCES * SILENCE_SECONDS:.0f} seconds: it hangs")

    async def died(self) -> ChildDied:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), SILENCE_SECONDS)
        code = await self._gone()
        self._said.seek(max(self._from, os.fstat(self._said.fileno()).st_size - _LAST_WORDS))
        last = self._said.read().decode(errors="replace").strip()[-600:]
        return ChildDied(
            f"the training process ended with code {code}: {last or 'it said nothing; was it killed for memory?'}"
        )

    async def end(self) -> None:
        await self._gone()
        self._said.close()

    async def _gone(self) -> int:
        """Kills it if need be. `wait` may wait for the end of its output, which comes only to one who reads on."""
        assert self._process.stdout
        if self._process.returncode is None:
            self._process.kill()
        while await self._process.stdout.read(1 << 16):
            pass
        return await self._process.wait()
