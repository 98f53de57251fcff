"""What the log says of runs: a worker that starts again knows what the one before it knew."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from processors.training.quota import DAY
from projections.training_runs import ENDED, TRAINING_RUNS, Run, overtaken
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingRequested, TrainingWithdrawn
from streams.errors import MissingOffsets
from streams.fold.view import View
from streams.log.partitioner import partition_of
from streams.log.port import EventLog, records_in

MOST_OVER = 50_000
"""Runs of one company that are over and known still, of half a kilobyte each; five times what may wait of it. Who sends
an older one again begins it anew."""


@dataclass
class Underway:
    """A run in this worker's hands."""

    request: TrainingRequested
    partition: int
    claim: int
    reads_since: int | None = None
    """When the reading of its dataset began."""

    def read_seconds(self, now: int) -> float:
        return 0.0 if self.reads_since is None else max(1, now - self.reads_since) / 1e6


class Known:
    """The rows of training_runs up to the log's end, without words, which stay in the log: they may be a megabyte.

    Of an accepted run it is known where that was said; what it names is read there when its turn comes. Of each company
    the newest that are over are known: nobody fills this memory by asking.
    """

    def __init__(self, event_log: EventLog, names: TopicNames, beat: Callable[[], None], worker: str) -> None:
        self._worker, self._log, self._wire = worker, event_log, names.wire(TRAINING_RUNS.topics[0])
        self._view = View(event_log, names, replace(TRAINING_RUNS, fold=self._fold), beat)
        self._begun: defaultdict[str, dict[str, Run]] = defaultdict(dict)
        """By company: what counts for its quota."""
        self._withdrawn: defaultdict[str, set[str]] = defaultdict(set)
        """By company: wishes taken back that have no outcome yet."""
        self._accepted: dict[str, Origin] = {}
        """Where the newest claim of a run stands that has no outcome yet."""
        self._over: defaultdict[str, deque[str]] = defaultdict(deque)
        """By company, the oldest first."""

    async def up_to_now(self, partitions: Collection[int] | None = None) -> Mapping[str, Run]:
        return await self._view.catch_up(partitions)

    async def homes(self, companies: Collection[str]) -> Mapping[str, int]:
        """The partition in which all that is said of a company's runs belongs."""
        count = len(await self._log.starts(self._wire)) if companies else 0
        return {company: partition_of(company.encode(), count) for company in companies}

    def of(self, company: str, run: str) -> Run:
        key = f"{company}/{run}"
        return self._view.rows.get(key) or TRAINING_RUNS.initial(key)

    async def whole(self, company: str, run: str) -> Run:
        """With the ranges, the manifest and the examples that were accepted, as long as the log has them."""
        known = self.of(company, run)
        if (at := self._accepted.get(f"{company}/{run}")) is None:
            return known
        with suppress(MissingOffsets):
            async for record in records_in(self._log, at.topic, at.partition, at.offset, at.offset + 1):
                event = decode(record.value, record.origin, record.timestamp, record.headers)
                if isinstance(event, TrainingAccepted):
                    said = {"ranges": event.ranges, "manifest": event.manifest, "examples": event.examples}
                    known = msgspec.structs.replace(known, **said)
        return known

    def claim_of(self, company: str, run: str, generation: int) -> int:
        """The worker's own claim goes on; one over another's has a higher number, also where the group has begun to
        count anew."""
        known = self.of(company, run)
        return max(generation, known.generation + self._others(known))

    def lost(self, company: str, run: str, claim: int) -> bool:
        """It has an outcome by now, or another has claimed it since."""
        known = self.of(company, run)
        same = self._others(known) and known.generation == claim
        return known.status in ENDED or overtaken(known, claim) or same

    def _others(self, known: Run) -> bool:
        return known.status == "accepted" and known.worker != self._worker

    def begun(self, company: str, now: int) -> Collection[Run]:
        """Of the last day. Older ones count no more, and are let go."""
        runs = self._begun.get(company, {})
        for run in [each for each in runs.values() if max(each.accepted_at, each.updated_at) <= now - DAY]:
            del runs[run.run]
        return runs.values()

    def withdrawn(self) -> Mapping[str, Collection[str]]:
        return self._withdrawn

    def _fold(self, state: Run, event: Event) -> Run:
        run = TRAINING_RUNS.fold(state, event)
        if run is state:
            return run
        key = f"{run.company}/{run.run}"
        if run.status != "accepted":
            self._accepted.pop(key, None)
        elif isinstance(event, TrainingAccepted) and self._view.at is not None:
            self._accepted[key] = self._view.at
        if _is_over(run) and (state.status == "unknown" or not _is_over(state)):
            self._let_go(run.company, run.run)
        kept = _figures(run)
        if run.accepted_at or run.worked:
            self._begun[run.company][run.run] = kept
        if isinstance(event, TrainingWithdrawn):
            self._withdrawn[run.company].add(run.run)
        elif run.status in ENDED and run.company in self._withdrawn:
            self._withdrawn[run.company].discard(run.run)
            if not self._withdrawn[run.company]:
                del self._withdrawn[run.company]
        return kept

    def _let_go(self, company: str, newest: str) -> None:
        line = self._over[company]
        line.append(newest)
        if len(line) <= MOST_OVER:
            return
        key = f"{company}/{(oldest := line.popleft())}"
        row = self._view.rows.get(key)
        if row is not None and _is_over(row):
            del self._view.rows[key]
            self._accepted.pop(key, None)
            self._withdrawn.get(company, set()).discard(oldest)
            if not row.asked:
                self._begun[company].pop(oldest, None)


def _is_over(run: Run) -> bool:
    """It has its outcome, or nobody asked for it."""
    return run.status in ENDED or not run.asked


def _figures(run: Run) -> Run:
    """Who has an accepted one, and how far it is, decides what of all that is said of it counts."""
    live = run.status == "accepted"
    return Run(
        company=run.company,
        run=run.run,
        status=run.status,
        asked=run.asked,
        withdrawn=None if run.withdrawn is None else "",
        worker=run.worker if live else "",
        generation=run.generation,
        accepted_at=run.accepted_at,
        worked=run.worked,
        phase=run.phase if live else "",
        step=run.step if live else 0,
        updated_at=run.updated_at,
    )
