"""The training worker: a plain consumer group. It polls on while a child trains, and says each thing once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpu_workers.artifacts import ArtifactStore, Facts
from gpu_workers.base_files import find
from gpu_workers.errors import ArtifactRefused, BaseModelMissing, ChildDied
from gpu_workers.inbox import Inbox, Item
from gpu_workers.train.lines import Outcome, Refused, Report, RunSpec
from gpu_workers.train.parent import Train, train_in_child
from processors import train_events as say
from processors.admit import Refusal, admit, enough, same_adapter, version_for
from processors.dataset import Manifest
from processors.train_settings import METHOD_NAMES, TrainSettings
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import ENDED, TRAINING_RUNS, Run
from schemas.envelope import Event
from schemas.topics import TopicNames
from schemas.training import TrainingRequested
from streams.errors import Fenced, MissingOffsets
from streams.log import EventLog, Subscription
from streams.outgoing import to_outgoing
from streams.replay import build, everything_up_to_now
from streams.standing import Standing
from streams.view import View
from streams.watch import Counts

GROUP = "rillfold-train"
TOPIC = "training-request"
POLL_SECONDS = 0.5
# So many live lines of a phase go into the log, however many steps it has.
LINES = 50


class Work(NamedTuple):
    item: Item
    task: asyncio.Task[None]


@dataclass(frozen=True)
class Place:
    """Where this worker runs."""

    worker: str
    scratch: Path
    cache: Path
    threads: int
    clock: Callable[[], int]


class Trainer:
    """`run` until cancelled. What it must know it reads from the log, so a crash takes nothing away."""

    def __init__(
        self, log: EventLog, names: TopicNames, store: ArtifactStore, place: Place, train: Train = train_in_child
    ) -> None:
        self._log, self._names, self._store, self._place = log, names, store, place
        self._train_spec = train
        self._runs = View(log, names, TRAINING_RUNS)
        self._adapters = View(log, names, LORA_ADAPTERS)
        self._generation = 0
        self.standing = Standing()
        self._runs_ended = 0

    def counts(self) -> Counts:
        return {"training_runs": ("Runs that came to an end.", self._runs_ended)}

    async def run(self, ready: Callable[[], None]) -> None:
        inbox, work = Inbox(), None
        async with self._log.subscribe(self._names.wire(GROUP), [self._names.wire(TOPIC)]) as group:
            ready()
            try:
                while True:
                    work = await self._step(group, inbox, work)
            finally:
                await _stop(work)

    async def _step(self, group: Subscription, inbox: Inbox, work: Work | None) -> Work | None:
        """Poll; drop what is no longer ours; finish a run or begin one; commit."""
        inbox.take(await group.poll(POLL_SECONDS))
        await self.standing.found(group)
        self._keep_ours(group, inbox)
        if work and not inbox.holds(work.item):
            await _stop(work)
            work = None
        if work and work.task.done():
            await work.task
            inbox.finished(work.item)
            self._runs_ended += 1
            work = None
        if work is None and (item := inbox.first()):
            work = Work(item, asyncio.create_task(self._handle(item)))
        try:
            await group.commit(done := inbox.committable())
            self.standing.reached(done)
        except Fenced:
            inbox.forget()
        return work

    def _keep_ours(self, group: Subscription, inbox: Inbox) -> None:
        """Given out anew once, a partition that is still here never left. More than once, it may have been away."""
        generation, known = group.generation(), self._generation
        self._generation = generation
        if known and generation > known + 1:
            inbox.forget()
        inbox.keep_only(group.assignment())

    async def _handle(self, item: Item) -> None:
        """One request to its one outcome. The order in which things are said is written here and nowhere else.

        1. what the log says already   2. admitted or refused   3. dataset   4. training.accepted
        5. the child trains   6. artifact in the store   7. adapter.ready   8. training.completed
        A crash between any two of them ends in the same events: ids, ranges and bytes come out the same.
        """
        request = item.request
        known = await self._known(item)
        if known.status in ENDED:
            return None
        settings = admit(request, METHOD_NAMES, _why_missing)
        if isinstance(settings, Refusal):
            return await self._say(say.refused(request, settings, self._now()))
        folder = self._empty_folder(request)
        try:
            manifest = await self._dataset(request, known, folder / "rows.jsonl")
            outcome = await self._train(request, settings, manifest, folder)
            await self._publish(request, settings, manifest, outcome, folder / "out")
        except _Ended as end:
            await self._say(end.event)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _dataset(self, request: TrainingRequested, known: Run, rows: Path) -> Manifest:
        """The ranges that were accepted once stay those of the run, however long ago that was."""
        ranges = known.ranges or request.ranges or await everything_up_to_now(self._log, self._names)
        try:
            manifest = await build(
                self._log, self._names, request.company, ranges, rows, lambda _done, _of: self.standing.beat()
            )
        except MissingOffsets as error:
            raise _Ended(say.refused(request, Refusal("missing_offsets", str(error)), self._now())) from error
        if nothing := enough(manifest):
            raise _Ended(say.refused(request, nothing, self._now()))
        if known.manifest and known.manifest != manifest.sha256:
            detail = f"the run was accepted with manifest {known.manifest}; its ranges give {manifest.sha256} now."
            raise _Ended(say.failed(request, "dataset_changed", detail, self._now()))
        if not known.manifest:
            await self._say(say.accepted(request, manifest, self._place.worker, self._now()))
        return manifest

    async def _train(
        self, request: TrainingRequested, settings: TrainSettings, manifest: Manifest, folder: Path
    ) -> Outcome:
        spec = RunSpec(
            rows=folder / "rows.jsonl",
            rows_sha256=manifest.rows_sha256,
            out=folder / "out",
            cache=self._place.cache,
            base_model=request.base_model,
            method=request.method,
            settings=settings,
            threads=self._place.threads,
        )

        heard: Report | None = None

        async def on_report(it: Report) -> None:
            nonlocal heard
            self.standing.beat()
            before, heard = heard, it
            if it != before and _worth_saying(it):
                await self._say(say.progressed(request, it.phase, it.step, it.steps, it.loss, self._now()))

        try:
            outcome = await self._train_spec(spec, on_report)
        except ChildDied as error:
            raise _Ended(say.failed(request, "child_died", str(error), self._now())) from error
        if isinstance(outcome, Refused):
            raise _Ended(say.failed(request, outcome.reason, outcome.detail, self._now()))
        return outcome

    async def _publish(
        self, request: TrainingRequested, settings: TrainSettings, manifest: Manifest, outcome: Outcome, out: Path
    ) -> None:
        """Ready is said unless the log has it: from this run, or from another with the very same bytes."""
        base = outcome.base
        facts = Facts(company=request.company, base_model=base.name, base_sha256=base.sha256, tools_in_prompt=False)
        try:
            sha256 = await asyncio.to_thread(self._store.put, out, facts)
        except ArtifactRefused as error:
            raise _Ended(say.failed(request, "artifact_refused", str(error), self._now())) from error
        adapters = await self._adapters.catch_up()
        if same_adapter(adapters, request, sha256) is None:
            ready = say.ready(
                request,
                settings,
                manifest,
                adapter_version=version_for(adapters, request),
                sha256=sha256,
                uri=self._store.uri(sha256),
                base_model=base.name,
                base_sha256=base.sha256,
                identity=outcome.identity,
                evaluation=outcome.evaluation,
                now=self._now(),
            )
            await self._say(ready)
        await self._say(say.completed(request, sha256, request.time, self._now()))

    async def _known(self, item: Item) -> Run:
        rows = await self._runs.catch_up([item.place[1]])
        key = TRAINING_RUNS.key(item.request)
        assert key is not None
        return rows.get(key) or TRAINING_RUNS.initial(key)

    def _empty_folder(self, request: TrainingRequested) -> Path:
        """What a crashed run left there is of no use."""
        folder = self._place.scratch / request.id.replace("/", "_")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        return folder

    async def _say(self, event: Event) -> None:
        await self._log.append([to_outgoing(event, self._names)])

    def _now(self) -> int:
        return self._place.clock()


class _Ended(Exception):
    """The run is over; this event says how."""

    def __init__(self, event: Event) -> None:
        self.event = event


async def _stop(work: Work | None) -> None:
    if work is not None:
        work.task.cancel()
        await asyncio.gather(work.task, return_exceptions=True)


def _why_missing(base_model: str) -> str | None:
    try:
        find(base_model)
    except BaseModelMissing as error:
        return str(error)
    return None


def _worth_saying(report: Report) -> bool:
    """The first, the last, and about fifty between them; not that the child lives, which the watchman wants to know."""
    if not report.steps:
        return False
    if report.steps <= LINES or report.step in (0, 1, report.steps):
        return True
    return report.step * LINES // report.steps != (report.step - 1) * LINES // report.steps
