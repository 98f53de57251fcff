"""What a loop says to the log and asks of it: made conversations, trainings, and the adapters that come of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gpu_workers.adapters.port import AdapterStore
from gpu_workers.train.lines import Report
from gpu_workers.train.parent import OnReport
from processors.dataset.selection import Selection
from processors.dataset.turns import Manifest, in_order
from processors.training.admit import same_adapter
from projections.lora_adapters import LORA_ADAPTERS, Adapter
from projections.training_runs import TRAINING_RUNS, Run
from rillfold.event_log import first
from schemas.company import AgentOutputIngested, ConversationIngested
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import OffsetRange, TrainingRequested, TrainingWithdrawn
from streams.fold.view import View
from streams.history import replay
from streams.history.followed import NobodyTakes, followed
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

Say = Callable[[str], None]


def unsaid(_line: str) -> None:
    """Told to nobody."""


class History:
    """What one loop tells the log, and what is learned of it: that alone, whatever else the log holds."""

    def __init__(
        self,
        log: EventLog,
        names: TopicNames,
        company: str,
        store: AdapterStore,
        *,
        begin: Sequence[OffsetRange] = (),
        worker: asyncio.Task[None] | None = None,
        say: Say = unsaid,
    ) -> None:
        """`worker`: who trains, where that is this process. `say` hears where nobody does."""
        self._log, self._names, self.company, self.store = log, names, company, store
        self._worker, self._to_people = worker, say
        self._begin = {part.partition: part.stop for part in begin if part.topic == replay.DATA_TOPIC}

    async def tell(self, conversations: Sequence[ConversationIngested | AgentOutputIngested]) -> None:
        await self._say(*conversations)

    async def ranges(self) -> tuple[OffsetRange, ...]:
        """All that was told since the loop began."""
        there = await replay.everything_up_to_now(self._log, self._names)
        data = [part for part in there if part.topic == replay.DATA_TOPIC]
        return in_order([msgspec.structs.replace(part, start=self._from(part)) for part in data])

    async def rows(self, path: Path, ranges: Sequence[OffsetRange], select: Selection) -> Manifest:
        """As a training worker builds them."""
        return await replay.build(self._log, self._names, self.company, ranges, path, select=select)

    async def trained(self, request: TrainingRequested, on_report: OnReport) -> Run:
        """Asks for it, and returns once it has its outcome. Whoever stops waiting takes the wish back."""
        await self._say(request)
        try:
            return await self._outcome(request, on_report)
        except asyncio.CancelledError:
            await self._say(TrainingWithdrawn(**first(request.company), run=request.id, reason="nobody waits for it"))
            raise

    async def adapter(self, request: TrainingRequested, run: Run) -> Adapter:
        """The version that its bytes are."""
        found = same_adapter(await View(self._log, self._names, LORA_ADAPTERS).catch_up(), request, run.sha256 or "")
        assert found is not None, "it is said to be ready before the run has ended"
        return found

    async def _outcome(self, request: TrainingRequested, on_report: OnReport) -> Run:
        nobody_takes = NobodyTakes(self._to_people)
        async for run in followed(self._log, self._names, request, TRAINING_RUNS):
            if self._worker is not None and self._worker.done():
                self._worker.result()
            if run.phase:
                await on_report(Report(phase=run.phase, step=run.step, steps=run.steps, loss=run.loss))
            nobody_takes.look(run)
        return run

    async def _say(self, *events: Event) -> None:
        await self._log.append([to_outgoing(event, self._names) for event in events])

    def _from(self, part: OffsetRange) -> int:
        return max(part.start, self._begin.get(part.partition, part.start))
