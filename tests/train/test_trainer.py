"""The training worker on both logs: one outcome for each request, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from gpu_workers.adapters.keys import PROVENANCE, AdapterKeys
from gpu_workers.adapters.signature import key_id, new_key, private_key
from gpu_workers.adapters.store import FolderStore, verify
from gpu_workers.errors import ChildDied, DatasetRefused
from gpu_workers.inbox.inbox import Inbox
from gpu_workers.train.child import reason_of
from gpu_workers.train.lines import Broken, ProofSpec, Report, Spec, Trained
from gpu_workers.train.place import Workplace
from gpu_workers.train.worker import GROUP, Trainer
from processors.training.admit import RunBounds
from rillfold.demo import data
from schemas.adapters import AdapterJudged, AdapterReady
from schemas.codec.codec import decode
from schemas.envelope import Event, Origin
from schemas.topics import TOPICS, TopicNames
from schemas.training import (
    OffsetRange,
    TrainingAccepted,
    TrainingCompleted,
    TrainingFailed,
    TrainingProgressed,
    TrainingRefused,
    TrainingRequested,
)
from streams.log.memory import MemoryLog
from streams.log.outgoing import to_outgoing
from streams.log.port import EventLog, Outgoing, Position, Record, TopicSpec
from tests.support.made import made_once, train_here
from tests.support.training import conversations
from tests.support.watching import Watching, breathe

USED = ("company-data", "training-request", "adapter-ready")
ENDS = (TrainingCompleted, TrainingFailed, TrainingRefused)


def on_a_machine_that_trains(train: Callable) -> Callable:
    """Runs as the test has it. The worker's own tiny run is a real one, in this process."""

    async def trains(spec: Spec, on_report) -> Any:
        return await (train_here if isinstance(spec, ProofSpec) else train)(spec, on_report)

    return trains


class Office:
    """A log with two companies' data, and workers that come and go."""

    def __init__(self, log: EventLog, names: TopicNames, tmp_path: Path, base: Path) -> None:
        self.log, self.names, self.tmp_path, self.base = log, names, tmp_path, str(base)
        self.store = FolderStore(tmp_path / "store")
        self._times = count(1_000_000)

    async def open(self) -> Office:
        parts = {topic.name: topic.partitions for topic in TOPICS}
        await self.log.create([TopicSpec(self.names.wire(name), parts[name]) for name in USED])
        events = [event for company in data.COMPANIES for event in conversations(company, 8, requests=3)]
        await self.append(*events)
        return self

    async def append(self, *events: Event) -> None:
        await self.log.append([to_outgoing(event, self.names) for event in events])

    def request(self, run: str, company: str = "acme", **fields: Any) -> TrainingRequested:
        quick = {"rank": 2, "steps": 2, "batch": 2, "warmup": 1, "evaluation_rows": 2}
        fields = {"base_model": "tiny", "settings": msgspec.json.encode(quick).decode(), **fields}
        return TrainingRequested(id=run, company=company, time=1, correlation=run, **fields)

    def trainer(
        self,
        log: EventLog | None = None,
        name: str = "one",
        train: Callable = made_once,
        bounds: RunBounds | None = None,
        inbox: Inbox | None = None,
        machine: Callable[[Callable], Callable] = on_a_machine_that_trains,
        **more: Any,
    ) -> Trainer:
        place = Workplace(
            worker=name,
            scratch=self.tmp_path / f"scratch-{name}",
            cache=self.tmp_path / "cache",
            threads=1,
            clock=lambda: next(self._times),
            bases={"tiny": self.base},
            bounds=bounds or RunBounds(),
            **more,
        )
        return Trainer(log or self.log, self.names, self.store, place, machine(train), inbox)

    async def said(self, topic: str = "training-request") -> list[Event]:
        wire, found = self.names.wire(topic), []
        for partition, end in (await self.log.ends(wire)).items():
            async for batch in self.log.read(wire, partition, 0, end):
                found += [self._event(record) for record in batch]
        return found

    async def ready(self) -> list[AdapterReady]:
        return [event for event in await self.said("adapter-ready") if isinstance(event, AdapterReady)]

    async def until(self, trainer: Trainer, enough: Callable[[list[Event]], bool], seconds: float = 240) -> list[Event]:
        """Runs a worker until the log says enough; re-raises what stops it before."""
        work = asyncio.create_task(trainer.run(lambda: None))
        watch = asyncio.create_task(self.watch(enough))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        return await self.said()

    async def watch(self, enough: Callable[[list[Event]], bool]) -> None:
        """Returns once the log says enough."""
        heard: list[Event] = []
        async with self.log.subscribe(f"watch-{uuid4()}", [self.names.wire("training-request")]) as group:
            while not enough(heard):
                for records in (await group.poll()).values():
                    heard += [self._event(record) for record in records]

    def _event(self, record: Record) -> Event:
        event = decode(record.value, Origin(record.topic, record.partition, record.offset), record.timestamp)
        assert isinstance(event, Event)
        return event


def ended(*runs: str) -> Callable[[list[Event]], bool]:
    return lambda said: {event.run for event in said if isinstance(event, ENDS)} >= set(runs)


def of(said: Sequence[Event], kind: type) -> list[Any]:
    return [event for event in said if isinstance(event, kind)]


@pytest.fixture
async def office(log, names, tmp_path, tiny_base) -> Office:
    return await Office(log, names, tmp_path, tiny_base).open()


@pytest.fixture
async def quiet_office(tmp_path, tiny_base) -> Office:
    """On the memory log alone: what is told here does not depend on the broker."""
    return await Office(MemoryLog(), TopicNames(), tmp_path, tiny_base).open()


async def test_a_request_becomes_an_adapter_with_its_whole_story(office):
    key = private_key(new_key(), "a test")
    keys = AdapterKeys({key_id(key.public_key()): key.public_key()}, demanded=True, own=lambda: key)
    office.store = FolderStore(office.tmp_path / "signed", keys)
    await office.append(office.request("r1"))
    said = await office.until(office.trainer(), ended("r1"))
    (accepted,), (completed,) = of(said, TrainingAccepted), of(said, TrainingCompleted)
    (ready,) = await office.ready()
    assert ready.adapter == "acme/default"
    assert (ready.adapter_version, ready.run, ready.company) == (1, "r1", "acme")
    assert ready.ranges == accepted.ranges
    assert ready.manifest == accepted.manifest
    assert completed.sha256 == ready.sha256
    assert ready.evaluation.examples == 3  # all there are: the gate asks ten
    assert verify(office.store.place(ready.sha256), ready.sha256).base_sha256 == ready.base_sha256
    stated = json.loads(office.store.papers(ready.sha256)[PROVENANCE])["predicate"]["buildDefinition"]
    assert stated["externalParameters"]["ranges"] == [msgspec.to_builtins(each) for each in ready.ranges]
    made_from = {each["name"]: each.get("digest") for each in stated["resolvedDependencies"]}
    assert made_from["dataset manifest"] == {"sha256": ready.manifest} and made_from["chat template"]
    assert {event.correlation for event in (*said, ready)} == {"r1"}
    assert {event.causation for event in (*said, ready)} == {None, "r1"}
    assert {event.phase for event in of(said, TrainingProgressed)} >= {"train", "measure"}
    assert [event.step for event in of(said, TrainingProgressed) if event.phase == "train"] == [1, 2]


async def test_the_same_request_twice_gives_one_adapter(office):
    request = office.request("r1")
    await office.append(request, request)
    await office.append(office.request("r2", role="other"))
    said = await office.until(office.trainer(), ended("r1", "r2"))
    assert Counter(event.run for event in of(said, TrainingCompleted)) == {"r1": 1, "r2": 1}
    assert sorted(event.adapter for event in await office.ready()) == ["acme/default", "acme/other"]


async def test_companies_do_not_mix(office):
    await office.append(office.request("a"), office.request("g", company="globex"))
    said = await office.until(office.trainer(), ended("a", "g"))
    accepted = {event.run: event for event in of(said, TrainingAccepted)}
    assert accepted["a"].manifest != accepted["g"].manifest
    ready = {event.company: event for event in await office.ready()}
    assert {company: event.adapter for company, event in ready.items()} == {
        "acme": "acme/default",
        "globex": "globex/default",
    }
    assert ready["acme"].sha256 != ready["globex"].sha256


async def test_the_same_ranges_give_the_same_bytes_and_more_data_the_next_version(office):
    await office.append(office.request("r1"))
    await office.until(office.trainer(train=train_here), ended("r1"))
    (first,) = await office.ready()
    await office.append(*conversations(data.ACME, 12)[8:])

    await office.append(office.request("again", ranges=first.ranges))
    said = await office.until(office.trainer(name="two", train=train_here), ended("again"))
    again = next(event for event in of(said, TrainingCompleted) if event.run == "again")
    assert again.sha256 == first.sha256
    assert await office.ready() == [first]

    await office.append(office.request("now"))
    await office.until(office.trainer(name="three"), ended("now"))
    newest = max(await office.ready(), key=lambda event: event.adapter_version)
    assert (newest.adapter_version, newest.run) == (2, "now")
    assert newest.sha256 != first.sha256


REFUSED = {
    "bad_role": {"role": "a role of several words"},
    "unknown_method": {"method": "magic"},
    "unknown_base_model": {"base_model": "/nowhere/at/all"},
    "bad_settings": {"settings": '{"steps": 0}'},
    "bad_ranges": {"ranges": (OffsetRange(topic="tool-call", partition=0, start=0, stop=1),)},
    "missing_offsets": {"ranges": (OffsetRange(topic="company-data", partition=0, start=0, stop=10_000_000),)},
    "no_data": {"company": "nobody"},
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_cannot_be_done_is_refused_with_its_reason(quiet_office, reason):
    office = quiet_office
    await office.append(office.request("r1", **REFUSED[reason]), office.request("r2", company="globex"))
    said = await office.until(office.trainer(), ended("r1", "r2"))
    (refused,) = of(said, TrainingRefused)
    assert (refused.run, refused.reason) == ("r1", reason)
    assert refused.detail
    assert [event.company for event in await office.ready()] == ["globex"]


async def test_unknown_settings_are_refused_by_their_name(quiet_office):
    await quiet_office.append(quiet_office.request("r1", settings='{"stepz": 5}'))
    (refused,) = of(await quiet_office.until(quiet_office.trainer(), ended("r1")), TrainingRefused)
    assert "stepz" in refused.detail


async def test_a_child_that_dies_is_a_failed_run_and_the_next_one_goes_on(quiet_office):
    async def dying(spec, on_report):
        if spec.settings.seed == 13:
            raise ChildDied("the training process ended with code -9: it said nothing")
        return await made_once(spec, on_report)

    unlucky = msgspec.json.encode({"seed": 13}).decode()
    await quiet_office.append(quiet_office.request("r1", settings=unlucky), quiet_office.request("r2"))
    said = await quiet_office.until(quiet_office.trainer(train=dying), ended("r1", "r2"))
    (failed,) = of(said, TrainingFailed)
    assert (failed.run, failed.reason) == ("r1", "child_died")
    assert [event.run for event in await quiet_office.ready()] == ["r2"]


async def test_a_sample_that_is_too_long_fails_the_run_by_name(quiet_office, tmp_path):
    short = msgspec.json.encode({"max_tokens": 5, "steps": 1}).decode()
    await quiet_office.append(quiet_office.request("r1", settings=short))

    async def refusing(spec, on_report) -> Trained | Broken:
        try:
            return await made_once(spec, on_report)
        except DatasetRefused as error:  # as the child does it
            return Broken(reason=reason_of(error), detail=str(error))

    said = await quiet_office.until(quiet_office.trainer(train=refusing), ended("r1"))
    (failed,) = of(said, TrainingFailed)
    assert failed.reason == "dataset_refused"
    assert "max_tokens" in failed.detail


class Crash(Exception):
    """The worker's process ends here."""


class CrashingLog:
    """A log whose owner dies at its n-th append, just before or just after the records are in."""

    def __init__(self, log: EventLog, at: int, *, after: bool) -> None:
        self._log, self._left, self._after = log, at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, records: Sequence[Outgoing]) -> Sequence[Position]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        positions = await self._log.append(records)
        if self._left == 0:
            raise Crash
        return positions


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_append_ends_in_exactly_one_adapter(tmp_path, tiny_base, after):
    whole = await Office(MemoryLog(), TopicNames(), tmp_path / "whole", tiny_base).open()
    await whole.append(whole.request("r1"))
    said = await whole.until(whole.trainer(), ended("r1"))
    appends = len(said) - 1 + 1  # all but the request; adapter.judged and adapter.ready are one
    (wanted,) = await whole.ready()
    once = {type(event) for event in said} - {TrainingProgressed, TrainingAccepted}

    for at in range(1, appends + 1):
        office = await Office(MemoryLog(), TopicNames(), tmp_path / f"{at}", tiny_base).open()
        await office.append(office.request("r1"))
        with pytest.raises(Crash):
            await office.until(office.trainer(CrashingLog(office.log, at, after=after)), lambda said: False)
        said = await office.until(office.trainer(name="next"), ended("r1"))
        (ready,) = await office.ready()
        assert (ready.id, ready.sha256, ready.adapter_version) == (wanted.id, wanted.sha256, 1), at
        verdicts = of(await office.said("adapter-ready"), AdapterJudged)
        assert [(each.run, each.promoted) for each in verdicts] == [("r1", ready.promoted)], at
        kinds = Counter(type(event) for event in said)
        assert {kind: kinds[kind] for kind in once} == dict.fromkeys(once, 1), at
        claims = of(said, TrainingAccepted)
        assert len({(claim.ranges, claim.manifest, claim.examples) for claim in claims}) == 1, at
        generations = [claim.generation for claim in claims]
        assert generations == sorted({claim.generation for claim in claims}), "one claim a worker, each a higher one"
        assert claims[-1].worker == "next" or (after and at == appends), "what had ended is nobody's to claim"


async def test_what_is_finished_is_committed_and_never_done_again(quiet_office):
    office, trained = quiet_office, []

    async def counting(spec, on_report):
        trained.append(spec.settings.seed)
        return await made_once(spec, on_report)

    def seeded(seed: int) -> TrainingRequested:
        settings = {"seed": seed, "steps": 1, "batch": 2, "evaluation_rows": 0}
        return office.request(f"r{seed}", role=f"role{seed}", settings=msgspec.json.encode(settings).decode())

    await office.append(seeded(1), seeded(2))
    await office.until(office.trainer(train=counting), ended("r1", "r2"))
    assert trained == [1, 2]
    (committed,) = (await office.log.committed(GROUP, "training-request")).values()
    await office.append(seeded(3))
    await office.until(office.trainer(train=counting), ended("r3"))
    assert trained == [1, 2, 3]
    said = await office.said()
    assert committed > next(n for n, event in enumerate(said) if isinstance(event, TrainingCompleted))


async def test_a_run_of_an_hour_is_no_stall_while_its_child_beats_and_one_that_is_silent_is(quiet_office):
    office, beats = quiet_office, asyncio.Queue()

    async def endless(spec, on_report):
        while True:
            await on_report(await beats.get())

    async def beat() -> None:
        beats.put_nowait(Report(phase="train", step=1, steps=900))
        await breathe()

    await office.append(office.request("r1"))
    trainer = office.trainer(train=endless)
    work = asyncio.create_task(trainer.run(lambda: None))
    await office.watch(lambda said: any(isinstance(event, TrainingAccepted) for event in said))
    watching = Watching(trainer.standing.sight, office.log)
    await watching.until(3600, beat)
    assert watching.stalled() is None
    await watching.until(3630, breathe)
    assert "training-request" in str(watching.stalled())
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert len(of(await office.said(), TrainingProgressed)) == 1, "a beat is not said again"


async def test_work_whose_partition_went_away_is_dropped_and_done_elsewhere(quiet_office):
    """The first worker is stuck in a training when the group gives globex, in the last partition, to the second."""
    office, stuck, killed = quiet_office, asyncio.Event(), asyncio.Event()

    async def forever(spec, on_report):
        stuck.set()
        try:
            await asyncio.Event().wait()
        finally:
            killed.set()

    await office.append(office.request("r1", company="globex"))
    first = asyncio.create_task(office.trainer(train=forever).run(lambda: None))
    async with asyncio.timeout(60):
        await stuck.wait()
        second = asyncio.create_task(office.trainer(name="two").run(lambda: None))
        await killed.wait()
        await office.watch(ended("r1"))
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    (ready,) = await office.ready()
    assert ready.run == "r1"
