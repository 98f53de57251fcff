"""One request to its one outcome. Whatever it causes ends in its own event; only the world ends the worker."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import cast

import msgspec

from gpu_workers.adapters.papers import put_papers
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.store import Facts
from gpu_workers.errors import NO_ROOM, ArtifactRefused, ChildDied, Unhealthy
from gpu_workers.train.blame import OF_THE_BASE, Blame
from gpu_workers.train.known import Known, Underway
from gpu_workers.train.lines import MADE_WORDS, MEASURED, Broken, Report, RunSpec, Trained
from gpu_workers.train.parent import Train
from gpu_workers.train.place import Workplace
from gpu_workers.train.served import Served
from gpu_workers.train.wishes import Ended, Overtaken, TakenBack, Wishes
from gpu_workers.train.world import LogOfRun, stored
from processors.dataset.noticed import Noticed
from processors.dataset.taught import topics_of
from processors.dataset.turns import Manifest, canonical
from processors.training import said as say
from processors.training.admit import (
    NotAdmitted,
    admit,
    enough,
    nowhere,
    same_adapter,
    too_often,
    version_for,
    wrong_range,
)
from processors.training.promotion import judge
from processors.training.quota import over
from processors.training.settings import METHOD_NAMES, TrainSettings
from projections.lora_adapters import LORA_ADAPTERS
from projections.training_runs import ENDED, TRAINING_RUNS, Outcome, Run
from schemas.adapters import AdapterJudged, AdapterReady
from schemas.company import SYNTHETIC
from schemas.envelope import Event
from schemas.errors import Retry
from schemas.topics import TopicNames
from schemas.training import TrainingAccepted, TrainingFailed, TrainingRefused, TrainingRequested
from streams.errors import MissingOffsets, TooMuchData
from streams.fold.view import View
from streams.history.replay import build, everything_up_to_now, partitions_of
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog

log = logging.getLogger(__name__)

TRIES = 5
NOT_WANTED = NotAdmitted("withdrawn", "The wish was taken back (training.withdrawn).")


class Handling:
    """What it must know it reads from the log, so a crash takes nothing away."""

    def __init__(
        self,
        event_log: EventLog,
        names: TopicNames,
        store: AdapterStore,
        place: Workplace,
        train: Train,
        beat: Callable[[], None],
    ) -> None:
        self._world = LogOfRun(event_log)
        self._log, self._names, self._store, self._place = cast(EventLog, self._world), names, store, place
        self._train_spec, self._beat = train, beat
        self._known = Known(self._log, names, beat, place.worker)
        self._wishes = Wishes()
        self._adapters = View(self._log, names, LORA_ADAPTERS, beat)
        self._served = Served(self._log, names, store, beat)
        self._blame = Blame(place, train, beat)

    async def sweep(self) -> None:
        """At the start: nothing is kept here for runs that nobody takes up any more. Read again, of all partitions:
        another worker may use this folder, too."""
        if left := self._place.left():
            rows = await Known(self._log, self._names, self._beat, self._place.worker).up_to_now()
            live = [(row.company, row.run) for row in rows.values() if row.status in ("requested", "accepted")]
            self._place.keep_only(live, left)

    async def runs(self, partitions: Collection[int]) -> Mapping[str, Run]:
        return await self._known.up_to_now(partitions)

    async def send_home(self, asked: Sequence[Event]) -> None:
        """Put where their key belongs what stands elsewhere, under the ids that it has; but what changes nothing there
        any more."""
        homes = await self.homes({event.company for event in asked})
        runs = await self.runs(set(homes.values()))
        ended = {key: run for key, run in runs.items() if run.status in ENDED}
        told = [(event, ended.get(str(TRAINING_RUNS.key(event)))) for event in asked]
        news = [event for event, run in told if run is None or TRAINING_RUNS.fold(run, event) is not run]
        await self._world.say_what_fits(news, self._names)

    async def homes(self, companies: Collection[str]) -> Mapping[str, int]:
        return await self._known.homes(companies)

    def withdrawn(self) -> Mapping[str, Collection[str]]:
        """By company, as of the last `runs`: those that have no outcome yet. One that is under way is stopped."""
        self._wishes.take_back(self._known.withdrawn())
        return self._known.withdrawn()

    def claim_of(self, request: Event, generation: int) -> int:
        """The number under which this worker speaks of a run, and claims it. `generation`: of the group, as far as it
        has heard."""
        return self._known.claim_of(request.company, request.id, generation)

    def begun(self, company: str, run: str) -> bool:
        """Somebody has claimed it, and it has no outcome: what is said of it now begins with reading that claim."""
        return self._known.of(company, run).status == "accepted"

    async def taken_back(self, request: Event, claim: int, read_seconds: float = 0.0) -> Sequence[Event]:
        """What is said of a run that nobody wants any more: it is refused; one that had begun fails."""
        now = self._now()
        if not self.begun(request.company, request.id):
            return [say.refused(request, NOT_WANTED, claim, now, read_seconds)]
        known = await self._known.whole(request.company, request.id)
        failed = say.failed(request, NOT_WANTED.reason, NOT_WANTED.detail, claim, now)
        return [*self._claimed(request, known, claim), failed]

    def admitted(self, request: TrainingRequested) -> TrainSettings | NotAdmitted:
        place, now = self._place, self._now()
        settings = admit(request, METHOD_NAMES, place.why_missing, place.bounds, place.rules)
        if not isinstance(settings, NotAdmitted) and not self._known.of(request.company, request.id).accepted_at:
            settings = over(place.bounds, self._known.begun(request.company, now), now) or settings
        return settings

    def refused(self, request: TrainingRequested, why: NotAdmitted, claim: int) -> TrainingRefused:
        return say.refused(request, why, claim, self._now())

    async def say(self, *events: Event) -> None:
        await self._log.append([to_outgoing(event, self._names) for event in events])

    async def end(self, partitions: Collection[int], *outcomes: Event) -> Sequence[Event]:
        """The last thing that is said of runs, and what of it was. Who slept may have lost them meanwhile: of a run
        that has an outcome or a newer claim by now nothing is said. One that no record can hold holds up nobody."""
        await self.runs(partitions)
        last = [event for event in outcomes if not self._lost(event)]
        await self._world.say_what_fits(last, self._names)
        for event in last:
            self._place.forget(event.company, str(event.causation))
        return last

    def _lost(self, event: Event) -> bool:
        assert isinstance(event, TrainingAccepted | Outcome)
        return self._known.lost(event.company, event.run, event.generation)

    async def handle(self, request: TrainingRequested, partition: int, generation: int = 0) -> bool:
        """Returns when the outcome stands in the log. False: another has claimed the run since, and nothing is said of
        what came of it here. Raises what only the world can be the cause of."""
        await self.runs([partition])
        known = self._known.of(request.company, request.id)
        if known.status not in ENDED:
            known = await self._known.whole(request.company, request.id)
            outcomes = await self._outcomes(Underway(request, partition, self.claim_of(request, generation)), known)
            for event in outcomes:
                if isinstance(event, TrainingFailed):
                    await self._blame.settle(event)
            if await self.end([partition], *outcomes):
                return True
            known = self._known.of(request.company, request.id)
        if known.status in ENDED:
            self._place.forget(request.company, request.id)
        return known.status in ENDED

    async def _outcomes(self, it: Underway, known: Run) -> Sequence[Event]:
        """Whatever a request causes ends in its own event. Empty: it is another's to end."""
        request = it.request
        if known.withdrawn is not None:
            return await self.taken_back(request, it.claim)
        try:
            return [await self._to_its_end(it, known)]
        except Ended as end:
            return [end.event]
        except Overtaken:
            return []
        except TakenBack:
            await self.runs([it.partition])
            if self._known.lost(request.company, request.id, it.claim):
                return []
            return await self.taken_back(request, it.claim, it.read_seconds(self._now()))
        except Exception as error:
            if self._world.is_to_blame(error):
                raise
            log.exception("run %s of %s broke", request.id, request.company)
            reason = "no_space" if isinstance(error, OSError) and error.errno in NO_ROOM else "internal"
            return [say.failed(request, reason, f"{type(error).__name__}: {error}", it.claim, self._now())]

    async def _to_its_end(self, it: Underway, known: Run) -> Event:
        """The order in which things are said is written here and nowhere else.

        1. what the log says already   2. a claim to what another began   3. admitted or refused   4. dataset
        5. training.accepted   6. the child trains   7. artifact in the store   8. adapter.judged and adapter.ready
        9. training.completed
        A crash between any two of them ends in the same outcome: ids, ranges and bytes come out the same.
        Taken back, a run is stopped before 7; from there on it is published. Before 5, 8 and each outcome the
        worker looks whether the run is its own still.
        """
        request = it.request
        if claims := self._claimed(request, known, it.claim):
            await self.say(*claims)
        settings = self.admitted(request)
        if isinstance(settings, NotAdmitted):
            raise self._refused(it, settings)
        folder = self._place.empty_folder(request.company, request.id, it.claim)
        try:
            async with self._wishes.held(request.company, request.id):
                manifest = await self._dataset(it, settings, known, folder / "rows.jsonl")
                outcome = await self._train(it, settings, manifest, folder)
            return await self._publish(it, settings, manifest, outcome, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _claimed(self, request: Event, known: Run, claim: int) -> Sequence[Event]:
        """To a run that was accepted: nothing where this claim stands."""
        if known.status != "accepted" or (known.worker, known.generation) == (self._place.worker, claim):
            return []
        return [say.claimed(request, known, self._place.worker, claim, self._now())]

    async def _dataset(self, it: Underway, settings: TrainSettings, known: Run, rows: Path) -> Manifest:
        """The ranges that were accepted once stay those of the run, however long ago that was."""
        request = it.request
        of_rule = (self._log, self._names, settings.rule, topics_of(settings.select.rules, self._place.rules))
        ranges = known.ranges or request.ranges or await everything_up_to_now(*of_rule)
        partitions = await partitions_of(*of_rule)
        if wrong := wrong_range(ranges, partitions):
            raise self._refused(it, NotAdmitted("bad_ranges", wrong))
        it.reads_since, noticed = self._now(), list[Noticed]()
        limit = asyncio.timeout(seconds := self._place.bounds.seconds)
        try:
            async with limit:
                manifest = await build(
                    self._log, self._names, request.company, ranges, rows, beat=self._beat, rule=settings.rule,
                    most_bytes=self._place.bounds.rows_bytes, select=settings.select, places=self._place.places,
                    on_noticed=noticed.append, rules=self._place.rules,
                )  # fmt: skip
        except TimeoutError as error:
            if not limit.expired():
                raise
            detail = f"reading the dataset took more than {seconds:.0f} seconds. Name ranges that hold less."
            raise self._refused(it, NotAdmitted("too_long", detail)) from error
        except MissingOffsets as error:
            raise self._refused(it, NotAdmitted("missing_offsets", str(error))) from error
        except TooMuchData as error:
            raise self._refused(it, NotAdmitted("too_much_data", str(error))) from error
        longest = await asyncio.to_thread(_longest, rows)
        too_large = self._place.why_too_large(request.base_model, request.method, settings, longest)
        why = nowhere(noticed) or enough(manifest, settings) or too_often(settings, manifest, self._place.bounds)
        if why := why or too_large:
            raise self._refused(it, why)
        if known.manifest and known.manifest != manifest.sha256:
            detail = f"the run was accepted with manifest {known.manifest}; its ranges give {manifest.sha256} now."
            raise self._failed(it, "dataset_changed", detail)
        await self._keep(manifest)
        if not known.manifest:
            await self._must_be_ours(it)
            await self.say(say.accepted(request, manifest, self._place.worker, it.claim, self._now()))
        return manifest

    async def _must_be_ours(self, it: Underway) -> None:
        """Reading and training take long: by now another may have claimed the run, or ended it."""
        await self.runs([it.partition])
        if self._known.lost(it.request.company, it.request.id, it.claim):
            raise Overtaken

    async def _keep(self, manifest: Manifest) -> None:
        """Before anything is said of it: what an adapter was made of can be read as long as the adapter."""
        try:
            await stored(self._beat, 0, self._store.put_manifest, canonical(manifest))
        except (OSError, Retry) as error:
            raise Unhealthy(f"The artifact store takes no manifest: {error}. Mend it; the request waits.") from error

    async def _train(self, it: Underway, settings: TrainSettings, manifest: Manifest, folder: Path) -> Trained:
        request, heard = it.request, None

        async def on_report(told: Report) -> None:
            nonlocal heard
            self._beat()
            before, heard = heard, told
            if told != before and told.worth_saying():
                phase, step, steps = told.phase, told.step, told.steps
                await self.say(say.progressed(request, phase, step, steps, it.claim, self._now(), **told.figures()))

        served, version = await self._served.now(request, await self._adapters.catch_up())
        spec = msgspec.structs.replace(
            self._spec(request, settings, manifest, folder), served=served, served_version=version
        )
        limit = asyncio.timeout(seconds := self._place.bounds.seconds)
        try:
            async with limit:
                outcome = await self._train_spec(spec, on_report)
        except ChildDied as error:
            raise self._failed(it, "child_died", str(error)) from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            detail = f"the run took more than {seconds:.0f} seconds. Ask for fewer steps, or a smaller batch."
            raise self._failed(it, "too_long", detail) from error
        if isinstance(outcome, Broken):
            where = outcome.reason in OF_THE_BASE
            detail = self._place.not_to_be_had(request.base_model, outcome.detail) if where else outcome.detail
            raise self._failed(it, outcome.reason, detail)
        return outcome

    def _spec(self, request: TrainingRequested, settings: TrainSettings, manifest: Manifest, folder: Path) -> RunSpec:
        return RunSpec(
            rows=folder / "rows.jsonl",
            rows_sha256=manifest.rows_sha256,
            out=folder / "out",
            cache=self._place.cache,
            base_model=self._place.bases[request.base_model],
            base_name=request.base_model,
            method=request.method,
            settings=settings,
            threads=self._place.threads,
            checkpoints=self._place.checkpoints(request.company, request.id),
            words=MADE_WORDS if settings.select.origins == (SYNTHETIC,) else 0,
        )

    async def _publish(
        self, it: Underway, settings: TrainSettings, manifest: Manifest, outcome: Trained, folder: Path
    ) -> Event:
        """Ready is said until the log has it: from this run, or from another with the very same bytes. The verdict is
        said with it, in one append. Somebody may publish into the role meanwhile, and then it is the next version.
        What is left to say is how the run ended."""
        request, sha256 = it.request, await self._stored(it, settings, outcome, folder)
        for tried in range(TRIES + 1):
            adapters = await self._adapters.catch_up()
            await self._must_be_ours(it)
            if same_adapter(adapters, request, sha256) is not None:
                return say.completed(request, sha256, it.claim, self._now())
            if tried == TRIES:
                break
            answers = await self._served.version(request)
            version, verdict = version_for(adapters, request), judge(outcome.measures, self._place.floors, answers)
            against = outcome.measures.against if outcome.measures else answers
            ready = say.ready(
                request, settings, manifest, adapter_version=version, sha256=sha256, uri=self._store.uri(sha256),
                base_model=outcome.base.name, base_sha256=outcome.base.sha256, identity=outcome.identity,
                evaluation=outcome.evaluation, promoted=verdict.promoted, now=self._now(),
            )  # fmt: skip
            judged = say.judged(request, version, against, verdict, self._now())
            await self._with_papers(judged, ready, outcome)
            await self.say(judged, ready)
        raise self._failed(it, "internal", "others published versions of its role all the time. Ask for it again.")

    async def _with_papers(self, judged: AdapterJudged, ready: AdapterReady, outcome: Trained) -> None:
        """Before it is ready: whoever loads it may demand its signature."""
        row = reduce(LORA_ADAPTERS.fold, (judged, ready), LORA_ADAPTERS.initial(str(LORA_ADAPTERS.key(ready))))
        build = msgspec.structs.replace(self._place.build, template_sha256=outcome.base.template_sha256)
        try:
            await stored(self._beat, 0, put_papers, self._store, row, build)
        except (OSError, Retry) as error:
            raise Unhealthy(f"The artifact store takes no papers: {error}. Mend it; the request waits.") from error

    async def _stored(self, it: Underway, settings: TrainSettings, outcome: Trained, folder: Path) -> str:
        """The adapter may be refused for what it is; a store that takes nothing is the world's."""
        base, shown = outcome.base, settings.tools == "in-prompt"
        facts = Facts(company=it.request.company, base_model=base.name, base_sha256=base.sha256, tools_in_prompt=shown)
        try:
            size = sum(each.stat().st_size for each in (folder / "out").iterdir())
            sha256 = await stored(self._beat, size, self._store.put, folder / "out", facts)
            await stored(self._beat, 0, self._store.put_measures, folder / MEASURED, sha256)
            return sha256
        except ArtifactRefused as error:
            raise self._failed(it, "artifact_refused", str(error)) from error
        except (OSError, Retry) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM and await asyncio.to_thread(self._store.has_room):
                detail = f"the artifact store has no room for an adapter of this size: {error}. Lower rank."
                raise self._failed(it, "no_space", detail) from error
            raise Unhealthy(f"The artifact store takes no adapter: {error}. Mend it; the request waits.") from error

    def _refused(self, it: Underway, why: NotAdmitted) -> Ended:
        now = self._now()
        return Ended(say.refused(it.request, why, it.claim, now, it.read_seconds(now)))

    def _failed(self, it: Underway, reason: str, detail: str) -> Ended:
        log.warning("run %s of %s fails: %s: %.2000s", it.request.id, it.request.company, reason, detail)
        return Ended(say.failed(it.request, reason, detail, it.claim, self._now()))

    def _now(self) -> int:
        return self._place.clock()


def _longest(rows: Path) -> int:
    with rows.open("rb") as lines:
        return max(map(len, lines), default=0)
